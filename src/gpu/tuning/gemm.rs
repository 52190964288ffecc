//! Rows for the products of prompts: which tile a block computes, and how many share its K.

use super::{Fault, type_fault};
use crate::dtype::DType;
use crate::gpu::geometry::Machine;
use crate::gpu::half::{HalfChoice, PARTS_AT_MOST, half_tiles};
use serde::{Deserialize, Serialize};

/// Rows of activations that a recording has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Up to 128: a row of tiles.
    Few,
    Many,
}

impl Rows {
    pub fn of(rows: u32) -> Self {
        match rows {
            ..=128 => Rows::Few,
            _ => Rows::Many,
        }
    }
}

/// Columns of y, of all matrices of a launch together, gate and up both: how many tiles there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cols {
    /// Up to 2,048.
    Narrow,
    /// Up to 8,192: what the layers of 7B to 70B models add to the residual.
    Middle,
    Wide,
}

impl Cols {
    pub fn of(cols: u32) -> Self {
        match cols {
            ..=2048 => Cols::Narrow,
            2049..=8192 => Cols::Middle,
            _ => Cols::Wide,
        }
    }
}

/// K: how much there is to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Up to 8,192.
    Shallow,
    Deep,
}

impl Depth {
    pub fn of(k: u32) -> Self {
        match k {
            ..=8192 => Depth::Shallow,
            _ => Depth::Deep,
        }
    }
}

/// What rows are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GemmKey {
    pub dtype: DType,
    pub rows: Rows,
    pub cols: Cols,
    pub depth: Depth,
}

/// A row of a table. What it does not say (`type`, `rows`, `cols`, `depth`) it holds for all of.
///
/// Which tile is computed by a block changes no bit; how many share its K does, as sums of parts are
/// rounded otherwise than one sum is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GemmRow {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<Cols>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// `128x64`: rows and columns of y.
    pub tile: String,
    /// Blocks that share the K of a tile.
    pub parts: u32,
}

impl GemmRow {
    /// A choice for everything (`None`) or for one key.
    pub fn new(key: Option<GemmKey>, choice: HalfChoice) -> Self {
        GemmRow {
            dtype: key.map(|key| key.dtype.name().to_ascii_lowercase()),
            rows: key.map(|key| key.rows),
            cols: key.map(|key| key.cols),
            depth: key.map(|key| key.depth),
            tile: choice.tile.to_string(),
            parts: choice.parts,
        }
    }

    pub(super) fn fits(&self, key: GemmKey) -> bool {
        let named = |name: &String| name.eq_ignore_ascii_case(key.dtype.name());
        self.dtype.as_ref().is_none_or(named)
            && self.rows.is_none_or(|rows| rows == key.rows)
            && self.cols.is_none_or(|cols| cols == key.cols)
            && self.depth.is_none_or(|depth| depth == key.depth)
    }

    /// `None` for a tile that no machine has.
    pub(super) fn choice(&self) -> Option<HalfChoice> {
        let mut tiles = Machine::ALL.into_iter().flat_map(half_tiles);
        let tile = tiles.find(|tile| tile.to_string() == self.tile);
        tile.map(|&tile| HalfChoice {
            tile,
            parts: self.parts,
        })
    }

    /// What is wrong with it on a kind of machine.
    pub(super) fn fault(&self, machine: Machine) -> Option<Fault> {
        let tiles: Vec<String> = half_tiles(machine)
            .iter()
            .map(ToString::to_string)
            .collect();
        if !tiles.contains(&self.tile) {
            return Some(("tile", tiles.join(" or "), self.tile.clone()));
        }
        if !(1..=PARTS_AT_MOST).contains(&self.parts) {
            let allowed = format!("1 to {PARTS_AT_MOST}");
            return Some(("parts", allowed, self.parts.to_string()));
        }
        type_fault(self.dtype.as_ref())
    }
}
