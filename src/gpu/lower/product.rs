//! Matrix products: `gemv` and `gated_gemv` for one row, `gemm` for several.

use super::{Lower, activation_code, typed};
use crate::dtype::DType;
use crate::gpu::geometry;
use crate::gpu::launch::{Args, Form, size};
use crate::gpu::pack::row_layout;
use crate::graph::{Activation, Element, WeightId};
use crate::program::{Launch, Slot};

/// Three weights at most share one `gemv3`.
const MERGED: usize = 3;

impl Lower<'_> {
    pub(super) fn gemm(&mut self, launch: &Launch, residual: bool) {
        let x = launch.inputs[0];
        let products: Vec<(WeightId, Slot)> = launch
            .weights
            .iter()
            .copied()
            .zip(launch.outputs.iter().copied())
            .collect();
        let dtype = |p: &(WeightId, Slot)| self.program.weights[p.0.index()].dtype;
        let alike: Vec<Vec<(WeightId, Slot)>> = products
            .chunk_by(|a, b| dtype(a) == dtype(b))
            .flat_map(|run| run.chunks(MERGED))
            .map(<[_]>::to_vec)
            .collect();
        if x.element == Element::F16 {
            let added = residual.then(|| launch.inputs[1]);
            for run in alike {
                self.gemm_half(x, &run, added);
            }
            return;
        }
        if x.rows == 1 && !residual {
            for run in alike {
                match run[..] {
                    [(weight, y)] => self.product(x, weight, None, y),
                    _ => self.gemv3(x, &run),
                }
            }
            return;
        }
        let added = residual.then(|| launch.inputs[1]);
        for (weight, y) in products {
            self.product(x, weight, added, y);
        }
    }

    /// One matrix: a `gemv` for one row, else a `gemm`.
    fn product(&mut self, x: Slot, weight: WeightId, added: Option<Slot>, y: Slot) {
        let (dtype, n, k) = self.matrix(weight);
        let mut args = Args::new();
        args.rows(x).matrix(weight, self.row_stride(weight));
        match added {
            Some(added) => args.rows(added),
            None => args.null().u32(0),
        };
        args.rows(y).u32(n).u32(k);
        if x.rows == 1 {
            let geometry = geometry::gemv(dtype, n, k, self.wave);
            self.push(typed("gemv", dtype), geometry, args.0);
        } else {
            args.u32(x.rows);
            let geometry = geometry::gemm(n, x.rows);
            self.push(typed("gemm", dtype), geometry, args.0);
        }
    }

    /// Up to three matrices of one type over rows of 16-bit floats; missing ones have no rows. The
    /// residual is the first's.
    fn gemm_half(&mut self, x: Slot, products: &[(WeightId, Slot)], added: Option<Slot>) {
        let (dtype, _, k) = self.matrix(products[0].0);
        let mut args = Args::new();
        args.rows(x);
        let mut sizes = [0; MERGED];
        for (index, size) in sizes.iter_mut().enumerate() {
            match products.get(index) {
                Some(&(weight, y)) => {
                    *size = self.matrix(weight).1;
                    args.weight(weight, Form::Matrix).rows(y).u32(*size);
                }
                None => {
                    args.null().null().u32(0).u32(0);
                }
            }
        }
        args.u32(self.row_stride(products[0].0));
        match added {
            Some(added) => args.rows(added),
            None => args.null().u32(0),
        };
        args.u32(k).u32(x.rows);
        let tile = geometry::half_tile(sizes, x.rows, self.machine);
        let geometry = geometry::gemm_half(dtype, sizes, x.rows, tile, self.machine);
        let kernel = if tile.small {
            "gemm_half_small"
        } else {
            "gemm_half"
        };
        self.push(typed(kernel, dtype), geometry, args.0);
    }

    /// Two or three matrices of one type over one row; a missing third has no rows.
    fn gemv3(&mut self, x: Slot, products: &[(WeightId, Slot)]) {
        let (dtype, _, k) = self.matrix(products[0].0);
        let mut args = Args::new();
        args.rows(x);
        let mut sizes = [0; MERGED];
        for (index, size) in sizes.iter_mut().enumerate() {
            match products.get(index) {
                Some(&(weight, y)) => {
                    *size = self.matrix(weight).1;
                    args.weight(weight, Form::Matrix).value(y).u32(*size);
                }
                None => {
                    args.null().null().u32(0);
                }
            }
        }
        args.u32(self.row_stride(products[0].0)).u32(k);
        let geometry = geometry::gemv3(dtype, sizes, k, self.wave);
        self.push(typed("gemv3", dtype), geometry, args.0);
    }

    pub(super) fn gated_gemv(&mut self, launch: &Launch, activation: Activation) {
        let (x, y) = (launch.inputs[0], launch.outputs[0]);
        let (gate, up) = (launch.weights[0], launch.weights[1]);
        let (dtype, n, k) = self.matrix(gate);
        let one = x.rows == 1 && self.matrix(up) == (dtype, n, k);
        assert!(one, "the passes fuse gates of one row and one type only");
        let mut args = Args::new();
        args.rows(x)
            .weight(gate, Form::Matrix)
            .matrix(up, self.row_stride(gate))
            .rows(y)
            .u32(n)
            .u32(k)
            .u32(activation_code(activation));
        let geometry = geometry::gated_gemv(dtype, n, k, self.wave);
        self.push(typed("gated_gemv", dtype), geometry, args.0);
    }

    fn matrix(&self, id: WeightId) -> (DType, u32, u32) {
        let slot = &self.program.weights[id.index()];
        (slot.dtype, size(slot.rows), size(slot.cols))
    }

    fn row_stride(&self, id: WeightId) -> u32 {
        let slot = &self.program.weights[id.index()];
        size(row_layout(slot.dtype, slot.cols).stride)
    }
}
