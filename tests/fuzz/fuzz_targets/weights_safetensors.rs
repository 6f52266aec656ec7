//! F1: any bytes are an error, or a list of tensors that lie inside the file.
#![no_main]

use fornax_model::weights::TensorFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = fornax_fuzz::folder().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let Ok(file) = TensorFile::open(&path) else { return };
    let mut total = 0;
    for name in file.names() {
        let tensor = file.get(name).unwrap();
        let elements: usize = tensor.shape.iter().product();
        assert_eq!(elements * tensor.dtype.bitsize(), tensor.bytes.len() * 8, "{name}");
        total += tensor.bytes.len();
    }
    assert!(total + 8 <= bytes.len(), "{total} bytes of tensors in {} bytes", bytes.len());
});
