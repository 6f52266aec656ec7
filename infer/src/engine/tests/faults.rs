//! Rows D4 to D7, cancellation, limits of the queue, and the end of an engine.

use std::time::{Duration, Instant};

use super::*;
use crate::sampler::SamplerError;

fn collect(stream: TokenStream) -> (Vec<u32>, TokenEvent) {
    let (mut ids, mut last) = (Vec::new(), None);
    for event in stream {
        if let TokenEvent::Token { id, .. } = event {
            ids.push(id);
        }
        last = Some(event);
    }
    (ids, last.expect("a stream has an end"))
}

fn with_fault(request: Request, fault: Fault) -> ValidRequest {
    ValidRequest { fault: Some(fault), ..valid(request) }
}

/// A request that no test waits for: it has as many tokens to generate as all pages hold.
fn lasting(number: u64) -> ValidRequest {
    ValidRequest::new(long(number), &ModelFacts::of(&decoder(), 2048, 16)).unwrap()
}

/// A request that goes on as long as it may.
fn long(number: u64) -> Request {
    let sampling = SamplingOptions { ignore_eos: true, ..sampling(number) };
    Request::new(prompt(number, 6), sampling)
}

fn alone(request: &Request) -> Vec<u32> {
    run_closed(&decoder(), &options(), vec![valid(request.clone())]).unwrap().outcomes[0].answers[0].ids()
}

/// Until `done`, for five seconds at most.
fn wait(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(5), "waited in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn d4_a_panic_in_one_request_is_its_own() {
    let engine = Engine::start(decoder(), &options()).unwrap();
    let streams: Vec<TokenStream> = (0..8)
        .map(|number| match number {
            3 => engine.submit(with_fault(long(3), Fault::PanicAt(4))).unwrap(),
            _ => engine.submit(valid(request(number))).unwrap(),
        })
        .collect();
    for (number, stream) in (0..).zip(streams) {
        let (ids, last) = collect(stream);
        if number == 3 {
            let expected = SequenceError::Panicked { position: 10, message: "an injected fault".to_owned() };
            assert_eq!((ids.len(), last), (4, TokenEvent::Failed(expected)));
        } else {
            assert_eq!(ids, alone(&request(number)), "request {number}");
            assert!(matches!(last, TokenEvent::Finished { .. }));
        }
    }
    wait(|| engine.stats().finished == 7);
    let stats = engine.stats();
    assert_eq!((stats.failed, stats.panics, stats.pages_used), (1, 1, 0));
    assert!(engine.is_alive());
}

#[test]
fn d5_when_the_engine_dies_everyone_learns_of_it() {
    let engine = Engine::start(decoder(), &options()).unwrap();
    let mut streams: Vec<TokenStream> = (0..3).map(|n| engine.submit(lasting(n)).unwrap()).collect();
    for stream in &mut streams {
        assert!(matches!(stream.recv(), Some(TokenEvent::Started { .. })));
    }
    let start = Instant::now();
    streams.push(engine.submit(with_fault(long(3), Fault::EngineDies)).unwrap());
    for stream in streams {
        let (_, last) = collect(stream);
        let died = SequenceError::EngineDied { message: "an injected death".to_owned() };
        assert_eq!(last, TokenEvent::Failed(died));
    }
    wait(|| !engine.is_alive());
    assert!(start.elapsed() < Duration::from_secs(1));
    let refused = engine.submit(valid(request(0))).unwrap_err();
    assert_eq!(refused, SubmitError::Dead { message: "an injected death".to_owned() });
    assert_eq!((engine.busy_for(), engine.queued()), (None, (0, 0)));
    engine.shutdown(Duration::ZERO);
}

/// A row of the embedding is NaN: a request that holds its token fails, and those beside it and after it in the same
/// pages do not.
#[test]
fn d6_logits_that_are_no_numbers_fail_their_request_alone() {
    let sick = 7;
    let poisoned = |value: f32| {
        let mut decoder = decoder();
        decoder.visit_mut(&mut |name, mut parameter| {
            if name == "model.embed_tokens.weight" {
                let mut table = parameter.flat().try_into_vec_as::<f32>().unwrap();
                table[sick * 32..(sick + 1) * 32].fill(value);
                parameter.set_flat(burn::tensor::Tensor::from_data(table.as_slice(), &Device::flex()));
            }
        });
        decoder
    };
    // A tied head would carry it into all logits.
    assert!(!config().tied);
    let healthy = |number| {
        let banned_ids = vec![sick as u32];
        let mut request = request(number);
        request.prompt.iter_mut().filter(|id| **id == sick as u32).for_each(|id| *id = 1);
        Request { sampling: SamplingOptions { banned_ids, ..request.sampling }, ..request }
    };
    let ill = Request { prompt: vec![1, sick as u32, 2], ..long(1) };
    for value in [f32::NAN, f32::INFINITY] {
        // Little memory, so that pages that held NaN go to others.
        let options = EngineOptions { memory: Memory::Tokens(100), ..options() };
        let engine = Engine::start(poisoned(value), &options).unwrap();
        for round in 0..3 {
            let before = engine.submit(valid(healthy(round))).unwrap();
            let fails = engine.submit(valid(ill.clone())).unwrap();
            let after = engine.submit(valid(healthy(round + 4))).unwrap();
            let (ids, last) = collect(fails);
            let TokenEvent::Failed(SequenceError::Sample { position: 3, source }) = last else {
                panic!("{ids:?}, {last:?}")
            };
            assert!(ids.is_empty() && matches!(source, SamplerError::NotFinite { .. }), "{source}");
            for (stream, number) in [(before, round), (after, round + 4)] {
                assert_eq!(collect(stream).0, alone(&healthy(number)), "request {number}");
            }
        }
        assert!(engine.is_alive());
    }
}

#[test]
fn dropping_the_stream_cancels_within_a_pass() {
    let engine = Engine::start(decoder(), &EngineOptions { max_running: 1, ..options() }).unwrap();
    for round in 1..=5u64 {
        let mut stream = engine.submit(lasting(round)).unwrap();
        let waiting = engine.submit(lasting(round + 1)).unwrap();
        assert!(matches!(stream.recv(), Some(TokenEvent::Started { .. })));
        drop(waiting);
        drop(stream);
        wait(|| engine.stats().cancelled == 2 * round);
        let stats = engine.stats();
        assert_eq!((stats.pages_used, stats.running, stats.waiting, engine.queued()), (0, 0, 0, (0, 0)));
    }
    let decisions = engine.decisions();
    let of = |request, wanted: fn(&Decision) -> bool| {
        decisions.iter().find(|traced| traced.request == request && wanted(&traced.decision)).map(|t| t.step)
    };
    for request in (0..10).step_by(2) {
        let joined = of(request, |decision| matches!(decision, Decision::Join { .. })).unwrap();
        assert!(of(request, |decision| *decision == Decision::Leave) > Some(joined));
        // The one behind it never began.
        assert_eq!(of(request + 1, |decision| matches!(decision, Decision::Join { .. })), None);
    }
}

#[test]
fn a_full_queue_says_so_with_both_numbers() {
    let options = EngineOptions { max_running: 1, max_waiting: 3, max_waiting_tokens: 20, ..options() };
    let engine = Engine::start(decoder(), &options).unwrap();
    // Holds the only place.
    let mut running = engine.submit(lasting(0)).unwrap();
    assert!(matches!(running.recv(), Some(TokenEvent::Started { .. })));
    let of =
        |len| valid(Request { max_tokens: Some(1), ..Request::new(prompt(1, len), SamplingOptions::greedy()) });
    let mut waiting = vec![engine.submit(of(15)).unwrap()];
    let refused = engine.submit(of(6));
    // By then the one in front may be done: what is refused is refused for its numbers.
    if let Err(error) = refused {
        assert_eq!(error, SubmitError::Full { requests: 1, max_requests: 3, tokens: 15, max_tokens: 20, own: 6 });
    }
    waiting.extend((0..2).filter_map(|_| engine.submit(of(1)).ok()));
    match engine.submit(of(1)) {
        Ok(stream) => waiting.push(stream),
        Err(error) => assert!(matches!(error, SubmitError::Full { requests: 3, max_requests: 3, .. }), "{error}"),
    }
    drop(running);
    for stream in waiting {
        assert!(matches!(collect(stream).1, TokenEvent::Finished { .. }));
    }
    assert_eq!(engine.queued(), (0, 0));
    // One alone is taken whatever its size.
    assert_eq!(collect(engine.submit(of(60)).unwrap()).0.len(), 1);
}

#[test]
fn an_engine_that_shuts_down_finishes_what_it_can() {
    let engine = Engine::start(decoder(), &options()).unwrap();
    let streams: Vec<TokenStream> = (0..4).map(|n| engine.submit(valid(request(n))).unwrap()).collect();
    engine.shutdown(Duration::from_secs(60));
    assert_eq!(
        engine.submit(valid(request(0))).unwrap_err(),
        SubmitError::Dead { message: "it was shut down".into() }
    );
    for (number, stream) in (0..).zip(streams) {
        assert_eq!(collect(stream).0, alone(&request(number)));
    }
    let engine = Engine::start(decoder(), &options()).unwrap();
    let stream = engine.submit(lasting(0)).unwrap();
    engine.shutdown(Duration::ZERO);
    assert_eq!(collect(stream).1, TokenEvent::Failed(SequenceError::Shutdown));
}

#[test]
fn an_engine_without_handles_ends_when_its_streams_do() {
    let engine = Engine::start(decoder(), &options()).unwrap();
    let clone = engine.clone();
    let (one, two) = (engine.submit(valid(request(1))).unwrap(), clone.submit(valid(request(2))).unwrap());
    drop((engine, clone));
    assert_eq!(collect(one).0, alone(&request(1)));
    assert_eq!(collect(two).0, alone(&request(2)));
}

#[test]
fn streams_can_be_read_without_waiting() {
    let engine = Engine::start(decoder(), &options()).unwrap();
    let mut stream = engine.submit(valid(request(0))).unwrap();
    let (mut ids, mut empty) = (Vec::new(), 0);
    loop {
        match stream.try_recv() {
            Ok(Some(TokenEvent::Token { id, .. })) => ids.push(id),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(stream::NothingYet) => {
                empty += 1;
                let timely = stream.recv_timeout(Duration::from_secs(5)).unwrap();
                if let Some(TokenEvent::Token { id, .. }) = timely {
                    ids.push(id);
                }
            }
        }
    }
    assert_eq!(ids, alone(&request(0)));
    assert!(empty > 0 && stream.recv().is_none());
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |options: &EngineOptions| Engine::start(decoder(), options).unwrap_err().to_string();
    let words = refused(&EngineOptions { token_budget: 3, max_running: 4, ..options() });
    assert!(words.starts_with("a pass of 3 tokens for 4 sequences"), "{words}");
    let words = refused(&EngineOptions { memory: Memory::Bytes(10), ..options() });
    assert!(words.starts_with("10 bytes for keys and values hold no page of 4 tokens"), "{words}");
}
