//! The gradient of an embedding table: rows added by token id.

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape};

use super::buffer::{dense, tensor, unset, values};
use super::parallel;

/// Table rows of one task: each task clears its rows and adds, in the order of the tokens, what belongs there.
const ROWS: usize = 1024;

/// ids_n, dy_nc -> dtable_vc. `None` where the ids have a dtype that this does not read.
pub(super) fn backward(table: &Shape, ids: &FlexTensor, dy: &FlexTensor) -> Option<FlexTensor> {
    let [v, c] = table.dims();
    let ids = indices(ids)?;
    let dy = dense(dy.clone());
    let dys = values(&dy);
    let mut dtable = unset(v * c);
    parallel::chunks([&mut dtable], ROWS * c, |i, [rows]| {
        rows.fill(0.0);
        let first = i * ROWS;
        let last = first + rows.len() / c;
        for (n, &id) in ids.iter().enumerate().filter(|&(_, &id)| (first..last).contains(&id)) {
            let row = &mut rows[(id - first) * c..(id - first + 1) * c];
            row.iter_mut().zip(&dys[n * c..(n + 1) * c]).for_each(|(sum, dy)| *sum += dy);
        }
    });
    Some(tensor(dtable, table.clone()))
}

/// The elements of an integer tensor; `None` for a dtype other than i32 and i64.
pub(super) fn indices(ids: &FlexTensor) -> Option<Vec<usize>> {
    let ids = dense(ids.clone());
    match ids.dtype() {
        DType::I64 => ids.as_slice::<i64>().map(|ids| ids.iter().map(|&id| id as usize).collect()),
        DType::I32 => ids.as_slice::<i32>().map(|ids| ids.iter().map(|&id| id as usize).collect()),
        _ => None,
    }
}
