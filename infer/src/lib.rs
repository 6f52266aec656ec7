//! Text generation: sampler, incremental detokenizer, decoding loop
