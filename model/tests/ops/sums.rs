//! Sums of fixed order: the same bits for any number of threads.

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use fornax_model::ops;

use crate::check::{devices, tensor, values};

fn uniform(n: usize) -> Vec<f32> {
    let mut random = rng(1, 0, "sums");
    (0..n).map(|_| random.uniform_f32()).collect()
}

fn bits(sum: Tensor<1>) -> u32 {
    sum.into_scalar::<f32>().to_bits()
}

#[test]
fn equal_bits_with_one_two_and_four_threads() {
    let device = Device::flex();
    for n in [1, 4095, 4096, 4097, 10_000_019] {
        let values = uniform(n);
        let exact: f64 = values.iter().map(|&x| f64::from(x)).sum();
        let exact_squares: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let x = Tensor::<1>::from_data(TensorData::new(values, [n]), (&device, DType::F32));
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                assert_eq!(rayon::current_num_threads(), threads);
                (bits(ops::ordered_sum(x.clone())), bits(ops::square_sum(x.clone())))
            })
        };
        let one = with(1);
        assert_eq!((with(2), with(4)), (one, one), "{n} elements");
        let error = |bits: u32, exact: f64| (f64::from(f32::from_bits(bits)) - exact).abs() / exact;
        let (sum, squares) = (error(one.0, exact), error(one.1, exact_squares));
        println!("{n:9} elements: sum off by {sum:.1e}, sum of squares off by {squares:.1e}, relative to f64");
        assert!(sum < 1e-6 && squares < 1e-6, "{n} elements: {sum} and {squares}");
    }
}

/// d(sum)/dx = 1 and d(sum of squares)/dx = 2 x, across chunk boundaries.
#[test]
fn gradients_are_exact() {
    for device in devices() {
        for n in [1, 5, 4096, 4097, 9001] {
            let host = uniform(n);
            let x = tensor(&host, DType::F32, &device).autodiff().require_grad();
            let ones = values(x.grad(&ops::ordered_sum(x.clone()).backward()).unwrap());
            assert!(ones.iter().all(|&g| g == 1.0), "{n} elements");
            let twice = values(x.grad(&ops::square_sum(x.clone()).backward()).unwrap());
            assert!(twice.iter().zip(&host).all(|(g, x)| *g == 2.0 * x), "{n} elements");
        }
    }
}
