//! Several sequences of different lengths in one pass over a paged cache: prompts in chunks beside sequences that decode,
//! pages in disorder, tokens that are taken back, pages that a window has left behind.

use fornax_base::rng::rng;
use fornax_model::adapter::AdapterId;
use fornax_model::{Decoder, KvCache, KvElement, Layout, Segment, token_tensor};

use crate::subjects::Rows;
use crate::values;

/// Slots of a page.
const PAGE: usize = 4;
/// Tokens that a row feeds in turn; each row begins elsewhere.
const CHUNKS: [usize; 6] = [5, 1, 1, 9, 1, 3];

/// What one row does in one pass.
struct Part {
    row: usize,
    from: usize,
    ids: Vec<u32>,
    /// Whether the tokens are the row's own: others are taken back by the next pass, which writes their slots again.
    own: bool,
}

/// The passes: a row joins each second pass, and each of its chunks of more than four tokens is preceded by wrong ones.
fn passes(rows: &Rows, v: usize) -> Vec<Vec<Part>> {
    let mut passes: Vec<Vec<Part>> = Vec::new();
    for (row, ids) in rows.0.iter().enumerate() {
        let (mut from, mut pass, mut turn) = (0, 2 * row, row);
        let mut add = |part: Part| {
            passes.resize_with(passes.len().max(pass + 1), Vec::new);
            passes[pass].push(part);
            pass += 1;
        };
        while from < ids.len() {
            let to = (from + CHUNKS[turn % CHUNKS.len()]).min(ids.len());
            if to - from > 4 {
                let wrong = Rows::random("wrong", 1, 3, v).0.remove(0);
                add(Part { row, from, ids: wrong, own: false });
            }
            add(Part { row, from, ids: ids[from..to].to_vec(), own: true });
            (from, turn) = (to, turn + 1);
        }
    }
    passes
}

/// Logits [b, t, v] of rows that pass through a paged cache beside each other, each with its adapter where some are
/// given.
pub(crate) fn ragged(
    decoder: &Decoder,
    rows: &Rows,
    element: KvElement,
    adapters: Option<&[Option<AdapterId>]>,
) -> Vec<f32> {
    let (v, device) = (decoder.config().vocab_size, decoder.device().without_autodiff());
    let of_row = rows.t().div_ceil(PAGE);
    let pages = of_row * rows.0.len();
    let mut order: Vec<u32> = (0..pages as u32).collect();
    let mut random = rng(3, 0, "pages");
    (1..pages).for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
    let mut cache = KvCache::paged(decoder.config(), pages, PAGE, element, &device);
    let mut logits = vec![Vec::new(); rows.0.len()];
    for parts in passes(rows, v) {
        let segment = |part: &Part| {
            let mut pages = order[part.row * of_row..(part.row + 1) * of_row].to_vec();
            pages[..behind(decoder, part.from)].fill(u32::MAX);
            Segment { past: part.from, tokens: part.ids.len(), pages }
        };
        let mut layout = Layout::ragged(parts.iter().map(segment).collect(), &device);
        if let Some(adapters) = adapters {
            let of_part = |part: &Part| vec![adapters[part.row]; part.ids.len()];
            layout = layout.with_adapters(parts.iter().flat_map(of_part).collect());
        }
        let ids: Vec<u32> = parts.iter().flat_map(|part| part.ids.clone()).collect();
        let hidden = decoder.forward(token_tensor(&ids, ids.len(), &device), &layout, Some(&mut cache));
        let all = values(decoder.logits_of_rows(hidden, &layout));
        let mut all = all.chunks(v);
        for part in &parts {
            let of_part: Vec<f32> = all.by_ref().take(part.ids.len()).flatten().copied().collect();
            if part.own {
                logits[part.row].extend(of_part);
            }
        }
    }
    logits.concat()
}

/// Pages that no layer reads any more when the token at `position` comes.
fn behind(decoder: &Decoder, position: usize) -> usize {
    let widest = decoder.config().windows.iter().copied().try_fold(0, |widest, w| w.map(|w| widest.max(w)));
    widest.map_or(0, |widest| (position + 1).saturating_sub(widest) / PAGE)
}
