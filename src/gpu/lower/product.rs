//! Matrix products: `gemv` and `gated_gemv` for one row, `gemm` for several, `gemm_half` for many.

use super::{Lower, activation_code, typed};
use crate::dtype::DType;
use crate::gpu::geometry::{self, GatedShape, GemvShape, HalfLaunch, HalfShape};
use crate::gpu::launch::{Args, Form, RoomNeeds, Tuned, size};
use crate::gpu::pack::row_layout;
use crate::graph::{Activation, Element, WeightId};
use crate::program::{Launch, Slot};

/// So many weights at most share one `gemv`.
const MERGED: usize = 3;

/// The weight and the eps of a norm that a product does on the way.
type Norm = Option<(WeightId, f32)>;

impl Lower<'_> {
    pub(super) fn gemm(&mut self, launch: &Launch, residual: bool) {
        let x = launch.inputs[0];
        if x.element == Element::F16 {
            let added = residual.then(|| launch.inputs[1]);
            for run in self.alike(launch) {
                self.gemm_half(x, &run, added, None);
            }
        } else if x.rows > 1 {
            let added = residual.then(|| launch.inputs[1]);
            for (&weight, &y) in launch.weights.iter().zip(&launch.outputs) {
                self.gemm_of_one(x, weight, added, y);
            }
        } else if residual {
            let product = (launch.weights[0], launch.outputs[0]);
            self.gemv(x, None, &[product], Some(launch.inputs[1]));
        } else {
            self.gemvs(launch, None);
        }
    }

    /// The products of one row: up to three of one type in a `gemv`.
    pub(super) fn gemvs(&mut self, launch: &Launch, norm: Norm) {
        for run in self.alike(launch) {
            self.gemv(launch.inputs[0], norm, &run, None);
        }
    }

    /// The products of a launch in runs of one type, of up to three.
    fn alike(&self, launch: &Launch) -> Vec<Vec<(WeightId, Slot)>> {
        let outputs = launch.outputs.iter().copied();
        let products: Vec<(WeightId, Slot)> = launch.weights.iter().copied().zip(outputs).collect();
        let dtype = |p: &(WeightId, Slot)| self.program.weights[p.0.index()].dtype;
        products
            .chunk_by(|a, b| dtype(a) == dtype(b))
            .flat_map(|run| run.chunks(MERGED))
            .map(<[_]>::to_vec)
            .collect()
    }

    /// One matrix over several rows.
    fn gemm_of_one(&mut self, x: Slot, weight: WeightId, added: Option<Slot>, y: Slot) {
        let (dtype, n, k) = self.matrix(weight);
        let mut args = Args::new();
        args.rows(x).matrix(weight, self.row_stride(weight));
        match added {
            Some(added) => args.rows(added),
            None => args.null().u32(0),
        };
        args.rows(y).u32(n).u32(k).u32(x.rows);
        let geometry = geometry::gemm(n, x.rows);
        self.push(typed("gemm", dtype), geometry, args.0);
    }

    /// Up to three matrices of one type over rows of 16-bit floats; missing ones have no rows. The
    /// residual is the first's. With a gate they are gate and up, and y is the first's.
    fn gemm_half(
        &mut self,
        x: Slot,
        products: &[(WeightId, Slot)],
        added: Option<Slot>,
        gate: Option<Activation>,
    ) {
        let (dtype, _, k) = self.matrix(products[0].0);
        let mut n = [0; MERGED];
        for (n, &(weight, _)) in n.iter_mut().zip(products) {
            *n = self.matrix(weight).1;
        }
        let shape = HalfShape {
            dtype,
            n,
            k,
            rows: x.rows,
            gated: gate.is_some(),
        };
        let launch = geometry::gemm_half(self.hardware, shape);
        let stride = match launch.expands {
            true => self.expand(products, &launch),
            false => self.row_stride(products[0].0),
        };
        let mut args = Args::new();
        args.rows(x);
        let mut before = 0;
        for (index, &rows) in n.iter().enumerate() {
            let Some(&(weight, y)) = products.get(index) else {
                args.null().null().u32(0).u32(0);
                continue;
            };
            match launch.expands {
                true => args.expanded(before * stride as usize),
                false => args.weight(weight, Form::Matrix),
            };
            args.rows(y).u32(rows);
            before += rows as usize;
        }
        args.u32(stride);
        match added {
            Some(added) => args.rows(added),
            None => args.null().u32(0),
        };
        args.u32(k).u32(x.rows);
        args.u32(gate.map_or(0, |activation| 1 + activation_code(activation)));
        match launch.parts {
            1 => args.null().null(),
            _ => args.sums().tickets(),
        };
        args.u32(launch.parts).u32(launch.part_tiles);
        self.push(launch.kernel(dtype), launch.geometry, args.0);
        let pushed = self.out.last_mut().expect("it was just pushed");
        pushed.tuned = Some(Tuned::Gemm(launch.key));
        if launch.parts > 1 {
            self.needs_room(RoomNeeds {
                tickets: launch.tiles(),
                sums_bytes: launch.sums_bytes(),
                ..RoomNeeds::default()
            });
        }
    }

    /// Brings the weights of a product to rows of f16, one matrix after the other; bytes from one row to
    /// the next.
    fn expand(&mut self, products: &[(WeightId, Slot)], launch: &HalfLaunch) -> u32 {
        let (dtype, _, k) = self.matrix(products[0].0);
        let stride = row_layout(DType::F16, k as usize).stride;
        let mut args = Args::new();
        let mut rows = 0;
        for index in 0..MERGED {
            match products.get(index) {
                Some(&(weight, _)) => {
                    let n = self.matrix(weight).1;
                    args.weight(weight, Form::Matrix).u32(n);
                    rows += n;
                }
                None => {
                    args.null().u32(0);
                }
            }
        }
        args.u32(self.row_stride(products[0].0)).u32(k);
        args.expanded(0).size(stride);
        self.push(typed("expand", dtype), geometry::expand(rows, k), args.0);
        let pushed = self.out.last_mut().expect("it was just pushed");
        pushed.tuned = Some(Tuned::Gemm(launch.key));
        self.needs_room(RoomNeeds {
            expanded_bytes: rows as usize * stride,
            ..RoomNeeds::default()
        });
        size(stride)
    }

    /// Gate and up of several rows of 16-bit floats.
    pub(super) fn gated_gemm(&mut self, launch: &Launch, activation: Activation) {
        let (x, y) = (launch.inputs[0], launch.outputs[0]);
        let (gate, up) = (launch.weights[0], launch.weights[1]);
        let alike = self.matrix(gate) == self.matrix(up);
        assert!(alike, "the passes fuse gates of one type only");
        self.gemm_half(x, &[(gate, y), (up, y)], None, Some(activation));
    }

    /// Up to three matrices of one type over one row; those missing have no rows.
    fn gemv(&mut self, x: Slot, norm: Norm, products: &[(WeightId, Slot)], added: Option<Slot>) {
        let (dtype, _, k) = self.matrix(products[0].0);
        let mut args = Args::new();
        args.value(x).norm(norm).u32(k);
        let mut n = [0; MERGED];
        for (index, n) in n.iter_mut().enumerate() {
            match products.get(index) {
                Some(&(weight, y)) => {
                    *n = self.matrix(weight).1;
                    args.weight(weight, Form::Matrix).value(y).u32(*n);
                }
                None => {
                    args.null().null().u32(0);
                }
            }
        }
        args.u32(self.row_stride(products[0].0));
        match added {
            Some(added) => args.value(added),
            None => args.null(),
        };
        let normed = norm.is_some();
        let shape = GemvShape {
            dtype,
            n,
            k,
            normed,
        };
        let launch = geometry::gemv(self.hardware, shape);
        for share in launch.deal_args() {
            args.u32(share);
        }
        self.push_tuned(launch, args.0);
    }

    pub(super) fn gated_gemv(&mut self, launch: &Launch, activation: Activation, norm: Norm) {
        let (x, y) = (launch.inputs[0], launch.outputs[0]);
        let (gate, up) = (launch.weights[0], launch.weights[1]);
        let (dtype, n, k) = self.matrix(gate);
        let one = x.rows == 1 && self.matrix(up) == (dtype, n, k);
        assert!(one, "the passes fuse gates of one row and one type only");
        let quantizes = y.element == Element::Q15A;
        let shape = GatedShape {
            dtype,
            n,
            k,
            normed: norm.is_some(),
            quantizes,
        };
        let launch = geometry::gated_gemv(self.hardware, shape);
        let mut args = Args::new();
        args.value(x)
            .norm(norm)
            .u32(k)
            .weight(gate, Form::Matrix)
            .matrix(up, self.row_stride(gate))
            .value(y)
            .u32(n)
            .u32(activation_code(activation))
            .u32(quantizes.into());
        for share in launch.deal_args() {
            args.u32(share);
        }
        if launch.ring.is_some() {
            args.sums().tickets();
        }
        self.push_tuned(launch, args.0);
        self.needs_room(launch.run_room(n));
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
