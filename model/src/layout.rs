//! Where the tokens of a forward pass stand.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::adapter::AdapterId;
use crate::ops::Segment;

/// Positions, and which document each token belongs to, for a batch of b rows and t columns.
#[derive(Debug, Clone)]
pub struct Layout {
    /// positions_bt: what the rotary embedding turns by. b may be 1 where all rows agree.
    pub positions_bt: Tensor<2, Int>,
    /// documents_bt: tokens see only their own document (packed training rows). `None`: one document a row.
    pub documents_bt: Option<Tensor<2, Int>>,
    /// The adapter of each row, or `None` in it for the base model alone. `None` as a whole: the active one.
    pub adapter_per_row: Option<Vec<Option<AdapterId>>>,
    /// The sequences whose tokens follow each other, one token a row, in a paged cache. `None`: a row is a sequence.
    pub segments: Option<Arc<Vec<Segment>>>,
}

impl Layout {
    /// Every row holds the positions `start..start + t`.
    pub fn contiguous(start: usize, t: usize, device: &Device) -> Self {
        let positions: Vec<i32> = (start..start + t).map(|p| p as i32).collect();
        Self::at(int_tensor(positions, 1, t, device))
    }

    /// Packed rows: positions that restart with each document, and the documents' numbers, row by row.
    pub fn packed(positions: &[u32], documents: &[u32], rows: usize, device: &Device) -> Self {
        let columns = positions.len() / rows.max(1);
        let tensor =
            |values: &[u32]| int_tensor(values.iter().map(|&v| v as i32).collect(), rows, columns, device);
        Self { documents_bt: Some(tensor(documents)), ..Self::at(tensor(positions)) }
    }

    /// Tokens of several sequences of different lengths, in the pages of a paged cache: n rows of one token each, n the sum
    /// of the segments' tokens, so that each has its own position and adapter.
    pub fn ragged(segments: Vec<Segment>, device: &Device) -> Self {
        let positions = segments.iter().flat_map(|segment| segment.past..segment.past + segment.tokens);
        let positions: Vec<i32> = positions.map(|p| p as i32).collect();
        let n = positions.len();
        Self { segments: Some(Arc::new(segments)), ..Self::at(int_tensor(positions, n, 1, device)) }
    }

    fn at(positions_bt: Tensor<2, Int>) -> Self {
        Self { positions_bt, documents_bt: None, adapter_per_row: None, segments: None }
    }

    /// The same places with an adapter for each row.
    #[must_use]
    pub fn with_adapters(self, per_row: Vec<Option<AdapterId>>) -> Self {
        Self { adapter_per_row: Some(per_row), ..self }
    }
}

/// Token ids, row by row -> tokens_bt.
pub fn token_tensor(ids: &[u32], rows: usize, device: &Device) -> Tensor<2, Int> {
    let columns = ids.len() / rows.max(1);
    int_tensor(ids.iter().map(|&id| id as i32).collect(), rows, columns, device)
}

fn int_tensor(values: Vec<i32>, rows: usize, columns: usize, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}
