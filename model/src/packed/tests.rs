//! The layout and its rounding, by hand and for any weights.

use proptest::prelude::*;

use super::*;

fn shape(out: usize, input: usize, codes: Codes, block: usize) -> PackedShape {
    PackedShape { out, input, packing: Packing::new(codes, block).unwrap() }
}

/// What a code in the lowest bits of `field` stands for, written apart from the ops.
fn value(codes: Codes, field: u32) -> f64 {
    match codes {
        Codes::Int8 => f64::from(field as u8 as i8),
        Codes::Int4 => f64::from(if field > 7 { field as i32 - 16 } else { field as i32 }),
        Codes::Nf4 => f64::from(NF4[field as usize]),
    }
}

#[test]
fn four_bits_by_hand() {
    // Greatest 3.5: scale 0.5. -1.25 / 0.5 = -2.5 goes to the even -2; 0.25 / 0.5 to 0.
    let weights = [3.5, -3.5, 0.5, -0.5, 1.0, 0.0, -1.25, 0.25];
    let parts = PackedParts::round(&weights, shape(1, 8, Codes::Int4, 8));
    // Codes 7, -7, 1, -1, 2, 0, -2, 0 from the lowest bits: 7, 9, 1, f, 2, 0, e, 0.
    assert_eq!(parts, PackedParts { words: vec![0x0e02_f197], scales: vec![0.5], zeros: None });
}

#[test]
fn eight_bits_by_hand() {
    let weights = [127.0, -127.0, 1.0, -1.0, 0.0, 2.4, -2.6, 64.0];
    let parts = PackedParts::round(&weights, shape(1, 8, Codes::Int8, 8));
    // 127, -127, 1, -1 are 7f, 81, 01, ff; 0, 2, -3, 64 are 00, 02, fd, 40.
    assert_eq!(parts, PackedParts { words: vec![0xff01_817f, 0x40fd_0200], scales: vec![1.0], zeros: None });
}

#[test]
fn nf4_by_hand() {
    let weights = [2.0, -2.0, 0.0, 0.16, -0.18, 1.2, -1.3, 0.079];
    let parts = PackedParts::round(&weights, shape(1, 8, Codes::Nf4, 8));
    // By the scale 2: 1, -1, 0, 0.08, -0.09, 0.6, -0.65, 0.0395; the last lies below 0.0398, halfway to 0.0796.
    assert_eq!(parts, PackedParts { words: vec![0x71d6_870f], scales: vec![2.0], zeros: None });
}

#[test]
fn a_row_that_is_no_whole_block_is_filled_up() {
    let int4 = PackedParts::round(&[1.0, 7.0, -7.0], shape(1, 3, Codes::Int4, 16));
    assert_eq!(int4, PackedParts { words: vec![0x971, 0], scales: vec![1.0], zeros: None });
    let nf4 = PackedParts::round(&[1.0, -1.0, 0.0], shape(1, 3, Codes::Nf4, 8));
    assert_eq!(nf4, PackedParts { words: vec![0x7777_770f], scales: vec![1.0], zeros: None });
    // Two rows of nine: each row begins in a word of its own.
    let rows = PackedParts::round(&[7.0; 18], shape(2, 9, Codes::Int4, 8));
    assert_eq!(rows.words, [0x7777_7777, 7, 0x7777_7777, 7]);
    assert_eq!(rows.scales, [1.0; 4]);
}

#[test]
fn zeros_the_least_numbers_and_what_is_not_finite() {
    for codes in [Codes::Int8, Codes::Int4, Codes::Nf4] {
        let shape = shape(1, 24, codes, 8);
        let mut weights = [0.0f32; 24];
        (weights[8], weights[20]) = (f32::from_bits(1), f32::INFINITY);
        let parts = PackedParts::round(&weights, shape);
        assert_eq!(parts.scales[..2], [0.0, f32::from_bits(1)]);
        assert!(parts.scales[2].is_nan());
        let per_block = 8 / codes.per_word();
        let field = |i: usize| parts.words[per_block + i / codes.per_word()] >> (i * codes.bits() % 32);
        assert_eq!(value(codes, field(0) & codes.mask()), 1.0, "{codes:?}");
        assert_eq!(value(codes, field(1) & codes.mask()), 0.0, "{codes:?}");
    }
}

#[test]
fn what_cannot_be_packed_is_refused_with_both_numbers() {
    for block in [0, 4, 12, 33, 2048] {
        let error = Packing::new(Codes::Int4, block).unwrap_err();
        assert!(error.to_string().contains(&format!("block of {block} ")), "{error}");
    }
    assert_eq!("nf4".parse(), Ok(Codes::Nf4));
    assert_eq!("int5".parse::<Codes>(), Err(PackedError::Codes { word: "int5".into() }));
    let shape = shape(2, 20, Codes::Int8, 16);
    let good = PackedParts { words: vec![0; 16], scales: vec![1.0; 4], zeros: Some(vec![0.0; 4]) };
    let device = Device::flex();
    assert_eq!(Packed::from_parts(good.clone(), shape, &device).unwrap().parts(), good);
    let refused = |change: fn(&mut PackedParts), part, expected, found| {
        let mut parts = good.clone();
        change(&mut parts);
        let error = Packed::from_parts(parts, shape, &device).unwrap_err();
        assert_eq!(error, PackedError::Parts { part, expected, found });
    };
    refused(|parts| parts.words.truncate(15), "words of codes", 16, 15);
    refused(|parts| parts.scales.push(0.0), "scales", 4, 5);
    refused(|parts| parts.zeros = Some(vec![]), "zero points", 4, 0);
    let shape = self::shape(2, 20, Codes::Nf4, 16);
    let parts = PackedParts { words: vec![0; 8], ..good.clone() };
    assert_eq!(Packed::from_parts(parts, shape, &device).unwrap_err(), PackedError::ZerosOfCodebook);
}

#[test]
fn bytes_are_those_of_the_layout() {
    let weight = Tensor::<2>::ones([6, 64], (&Device::flex(), DType::F32));
    for (codes, block, per_weight) in
        [(Codes::Int8, 32, 1.125), (Codes::Int8, 128, 1.03125), (Codes::Int4, 32, 0.625), (Codes::Nf4, 64, 0.5625)]
    {
        let packing = Packing::new(codes, block).unwrap();
        assert_eq!(packing.bytes_per_weight(), per_weight);
        if block <= 64 {
            assert_eq!(Packed::round(weight.clone(), packing).bytes() as f64, 384.0 * per_weight);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the weights, none moves by more than the promise, up to the rounding of f32.
    #[test]
    fn no_weight_moves_far(
        rows in 1usize..4,
        input in 1usize..70,
        block in 1usize..5,
        codes in prop_oneof![Just(Codes::Int8), Just(Codes::Int4), Just(Codes::Nf4)],
        seed in any::<u64>(),
        size in -40i32..38,
    ) {
        let mut random = fornax_base::rng::rng(seed, 0, "weights");
        let weights: Vec<f32> = (0..rows * input).map(|_| random.normal_f32() * 10f32.powi(size)).collect();
        let shape = shape(rows, input, codes, block * 8);
        let parts = PackedParts::round(&weights, shape);
        let packed = Packed::from_parts(parts.clone(), shape, &Device::flex()).unwrap();
        let read = packed.dequantized().into_data().iter::<f32>().collect::<Vec<_>>();
        for (at, (&w, &read)) in weights.iter().zip(&read).enumerate() {
            let (row, i) = (at / input, at % input);
            let scale = f64::from(parts.scales[row * shape.blocks() + i / (block * 8)]);
            let word = parts.words[row * shape.words() + i / codes.per_word()];
            let stands_for = value(codes, word >> (i * codes.bits() % 32) & codes.mask()) * scale;
            let least = f64::from(f32::from_bits(1));
            prop_assert!((f64::from(read) - stands_for).abs() <= 1e-6 * stands_for.abs() + least);
            let moved = (f64::from(w) - f64::from(read)).abs();
            let bound = f64::from(codes.greatest_error()) * scale;
            prop_assert!(moved <= bound + 1e-6 * f64::from(w).abs() + least, "{w} became {read}, scale {scale}");
        }
    }
}
