//! Stub until the kernels are embedded.

/// None.
pub const ARCHS: &[&str] = &[];

/// None.
pub fn code_object(_arch: &str) -> Option<&'static [u8]> {
    None
}
