//! A file of recorded tensors.

use std::path::Path;

use burn::tensor::Device;
use fornax_model::weights::TensorFile;

use super::ParityError;

/// A file of recorded tensors; what it lacks is an error that names it.
pub(super) struct RecordedFile(TensorFile);

impl RecordedFile {
    pub(super) fn open(path: &Path) -> Result<Self, ParityError> {
        Ok(Self(TensorFile::open(path)?))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.names()
    }

    pub(super) fn unusable(&self, tensor: &str, message: &str) -> ParityError {
        let path = self.0.path().to_path_buf();
        ParityError::Recorded { path, tensor: tensor.to_string(), message: message.to_string() }
    }

    /// Integers of 8 bytes each, row by row, with the number of rows and of columns.
    pub(super) fn integers(&self, name: &str) -> Result<(Vec<i64>, [usize; 2]), ParityError> {
        let tensor = self.0.get(name).ok_or_else(|| self.unusable(name, "it is absent"))?;
        let &[rows, columns] = tensor.shape else {
            return Err(self.unusable(name, "a matrix is expected"));
        };
        if tensor.bytes.len() != 8 * rows * columns {
            return Err(self.unusable(name, "64-bit integers are expected"));
        }
        let values = tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        Ok((values, [rows, columns]))
    }

    /// The same as token ids.
    pub(super) fn ids(&self, name: &str) -> Result<(Vec<u32>, [usize; 2]), ParityError> {
        let (values, shape) = self.integers(name)?;
        let ids = values.into_iter().map(u32::try_from).collect::<Result<_, _>>();
        Ok((ids.map_err(|_| self.unusable(name, "a number is not a token id"))?, shape))
    }

    /// The same as marks: 1 for true, 0 for false.
    pub(super) fn marks(&self, name: &str) -> Result<Vec<bool>, ParityError> {
        let (values, _) = self.integers(name)?;
        let mark = |value| match value {
            0 | 1 => Ok(value == 1),
            _ => Err(self.unusable(name, "a number is neither 0 nor 1")),
        };
        values.into_iter().map(mark).collect()
    }

    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>, ParityError> {
        let vector = self.0.vector(name, &Device::flex());
        let vector = vector.ok_or_else(|| self.unusable(name, "a tensor of f32 is expected"))?;
        vector.try_into_vec_as::<f32>().map_err(ParityError::device)
    }
}
