//! A small reader of what an AMD code object says about its kernels: the MessagePack document in its ELF note.

/// What a kernel occupies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    pub vgprs: u32,
    pub sgprs: u32,
    pub lds_bytes: u32,
    pub scratch_bytes: u32,
    pub spills: u32,
    /// The most threads of a block.
    pub threads: u32,
    pub wave: u32,
}

/// A MessagePack value, of the kinds that occur.
#[derive(Debug)]
enum Value<'o> {
    Number(u64),
    Text(&'o str),
    List(Vec<Value<'o>>),
    Map(Vec<(Value<'o>, Value<'o>)>),
    Other,
}

impl<'o> Value<'o> {
    fn get(&self, key: &str) -> Option<&Value<'o>> {
        let Value::Map(pairs) = self else { return None };
        let found = pairs
            .iter()
            .find(|(k, _)| matches!(k, Value::Text(text) if *text == key));
        found.map(|(_, value)| value)
    }

    fn number(&self, key: &str) -> u32 {
        match self.get(key) {
            Some(&Value::Number(n)) => u32::try_from(n).expect("a small number"),
            other => panic!("{key}: {other:?}"),
        }
    }
}

/// Takes `N` bytes off the front.
fn take<'o>(bytes: &mut &'o [u8], n: usize) -> &'o [u8] {
    let (front, rest) = bytes.split_at(n);
    *bytes = rest;
    front
}

/// A big-endian number of `n` bytes.
fn big(bytes: &mut &[u8], n: usize) -> usize {
    take(bytes, n)
        .iter()
        .fold(0, |value, &byte| value << 8 | usize::from(byte))
}

fn value<'o>(bytes: &mut &'o [u8]) -> Value<'o> {
    let tag = take(bytes, 1)[0];
    let text =
        |bytes: &mut &'o [u8], n| Value::Text(std::str::from_utf8(take(bytes, n)).expect("UTF-8"));
    let list = |bytes: &mut &'o [u8], n| Value::List((0..n).map(|_| value(bytes)).collect());
    let map = |bytes: &mut &'o [u8], n| {
        Value::Map((0..n).map(|_| (value(bytes), value(bytes))).collect())
    };
    match tag {
        0x00..=0x7f => Value::Number(u64::from(tag)),
        0x80..=0x8f => map(bytes, usize::from(tag & 15)),
        0x90..=0x9f => list(bytes, usize::from(tag & 15)),
        0xa0..=0xbf => text(bytes, usize::from(tag & 31)),
        0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Value::Other,
        0xcc..=0xcf => Value::Number(big(bytes, 1 << (tag - 0xcc)) as u64),
        0xd9..=0xdb => {
            let n = big(bytes, 1 << (tag - 0xd9));
            text(bytes, n)
        }
        0xdc | 0xdd => {
            let n = big(bytes, 2 << (tag - 0xdc));
            list(bytes, n)
        }
        0xde | 0xdf => {
            let n = big(bytes, 2 << (tag - 0xde));
            map(bytes, n)
        }
        _ => panic!("MessagePack tag {tag:#x} does not occur in code objects"),
    }
}

/// A little-endian number of `n` bytes at `at`.
fn little(bytes: &[u8], at: usize, n: usize) -> usize {
    bytes[at..at + n]
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | usize::from(byte))
}

/// The document of the note `NT_AMDGPU_METADATA` (32), owned by "AMDGPU".
fn metadata(elf: &[u8]) -> &[u8] {
    const NOTE_SEGMENT: usize = 4;
    let (headers, size, count) = (little(elf, 32, 8), little(elf, 54, 2), little(elf, 56, 2));
    for i in 0..count {
        let header = &elf[headers + i * size..][..size];
        if little(header, 0, 4) != NOTE_SEGMENT {
            continue;
        }
        let (at, len) = (little(header, 8, 8), little(header, 32, 8));
        let mut notes = &elf[at..at + len];
        while !notes.is_empty() {
            let head = take(&mut notes, 12);
            let (name, desc) = (little(head, 0, 4), little(head, 4, 4));
            let owner = take(&mut notes, name.next_multiple_of(4));
            let desc = &take(&mut notes, desc.next_multiple_of(4))[..desc];
            if owner.starts_with(b"AMDGPU\0") && little(head, 8, 4) == 32 {
                return desc;
            }
        }
    }
    panic!("no AMDGPU metadata in the code object");
}

/// The kernels of a code object.
pub fn kernels(elf: &[u8]) -> Vec<Kernel> {
    let document = value(&mut metadata(elf));
    let Some(Value::List(kernels)) = document.get("amdhsa.kernels") else {
        panic!("no kernels in the metadata");
    };
    kernels
        .iter()
        .map(|kernel| {
            let Some(&Value::Text(name)) = kernel.get(".name") else {
                panic!("a kernel without a name");
            };
            Kernel {
                name: name.to_owned(),
                vgprs: kernel.number(".vgpr_count"),
                sgprs: kernel.number(".sgpr_count"),
                lds_bytes: kernel.number(".group_segment_fixed_size"),
                scratch_bytes: kernel.number(".private_segment_fixed_size"),
                spills: kernel.number(".sgpr_spill_count") + kernel.number(".vgpr_spill_count"),
                threads: kernel.number(".max_flat_workgroup_size"),
                wave: kernel.number(".wavefront_size"),
            }
        })
        .collect()
}
