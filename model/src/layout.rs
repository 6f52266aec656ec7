//! Where the tokens of a forward pass stand.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::adapter::AdapterId;

/// Positions, and which document each token belongs to, for a batch of b rows and t columns.
#[derive(Debug, Clone)]
pub struct Layout {
    /// positions_bt: what the rotary embedding turns by. b may be 1 where all rows agree.
    pub positions_bt: Tensor<2, Int>,
    /// documents_bt: tokens see only their own document (packed training rows). `None`: one document a row.
    pub documents_bt: Option<Tensor<2, Int>>,
    /// The adapter of each row, or `None` in it for the base model alone. `None` as a whole: the active one.
    pub adapter_per_row: Option<Vec<Option<AdapterId>>>,
}

impl Layout {
    /// Every row holds the positions `start..start + t`.
    pub fn contiguous(start: usize, t: usize, device: &Device) -> Self {
        let positions: Vec<i32> = (start..start + t).map(|p| p as i32).collect();
        Self { positions_bt: int_tensor(positions, 1, t, device), documents_bt: None, adapter_per_row: None }
    }

    /// Packed rows: positions that restart with each document, and the documents' numbers, row by row.
    pub fn packed(positions: &[u32], documents: &[u32], rows: usize, device: &Device) -> Self {
        let columns = positions.len() / rows.max(1);
        let tensor =
            |values: &[u32]| int_tensor(values.iter().map(|&v| v as i32).collect(), rows, columns, device);
        let documents_bt = Some(tensor(documents));
        Self { positions_bt: tensor(positions), documents_bt, adapter_per_row: None }
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
