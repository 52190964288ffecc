//! Typed ids: `u32` newtypes that print as they appear in every dump (`n3`, `v7`, `w2`, `s1`).

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The id of the `index`-th item. Panics past `u32::MAX`, which no graph reaches.
            pub fn new(index: usize) -> Self {
                Self(u32::try_from(index).expect("more than u32::MAX items in a graph"))
            }

            /// The position of the item in the list that owns it.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A node: one operation of the step.
    NodeId, "n"
);
id!(
    /// A value: a temporary `[R, N]` that one node writes and later nodes read.
    ValueId, "v"
);
id!(
    /// A weight: a constant tensor of the model.
    WeightId, "w"
);
id!(
    /// A state: memory that lives from step to step (a layer's K or V cache).
    StateId, "s"
);
