//! Values as Python prints them: what `str` and `json.dumps` make of them.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Layers that a value is printed with, and bytes: one that holds itself has no end.
const LAYERS: usize = 200;
const LONGEST: usize = 1 << 26;

/// `str(value)`, and nothing for a value that is undefined.
pub(super) fn display(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.as_str().unwrap_or_default().to_string(),
        _ => {
            let mut out = String::new();
            repr(value, LAYERS, &mut out);
            out
        }
    }
}

/// `repr(value)`, of which what lies below `layers` is `...`
fn repr(value: &Value, layers: usize, out: &mut String) {
    if layers == 0 || out.len() > LONGEST {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool if value.is_true() => out.push_str("True"),
        ValueKind::Bool => out.push_str("False"),
        ValueKind::String => out.push_str(&quote(value.as_str().unwrap_or_default())),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = match value.is_tuple() {
                true => ('(', ')'),
                false => ('[', ']'),
            };
            out.push(open);
            let mut count = 0;
            for item in value.try_iter().into_iter().flatten() {
                if count > 0 {
                    out.push_str(", ");
                }
                repr(&item, layers - 1, out);
                count += 1;
            }
            if value.is_tuple() && count == 1 {
                out.push(',');
            }
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(&key, layers - 1, out);
                out.push_str(": ");
                let item = value.get_item(&key).unwrap_or(Value::UNDEFINED);
                repr(&item, layers - 1, out);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// A string literal: in single quotes, unless it holds some and no double ones.
fn quote(text: &str) -> String {
    let quote = match text.contains('\'') && !text.contains('"') {
        true => '"',
        false => '\'',
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() && u32::from(c) < 256 => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// The test `iterable`: none is not, unlike in the engine's own.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// The filter `tojson` of `transformers`: `json.dumps` with its options, without Jinja's escapes for HTML.
pub(super) fn tojson(
    value: Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = match indent {
        None => None,
        Some(value) if value.is_none() || value.is_undefined() => None,
        Some(value) => match (value.as_str(), value.as_i64()) {
            (Some(text), _) => Some(text.to_string()),
            (None, Some(count)) => Some(" ".repeat(count.clamp(0, 64) as usize)),
            (None, None) => {
                let text = format!("tojson: indent must be a number or a string, found {value}");
                return Err(Error::new(ErrorKind::InvalidOperation, text));
            }
        },
    };
    let (mut item, mut key) = match &indent {
        Some(_) => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
    };
    if let Some(separators) = options.get::<Option<Vec<String>>>("separators")? {
        let pair: Result<[String; 2], _> = separators.try_into();
        [item, key] = pair.map_err(|_| {
            let text = "tojson: separators must be two strings";
            Error::new(ErrorKind::InvalidOperation, text)
        })?;
    }
    let dump = Dump {
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item,
        key,
    };
    options.assert_all_used()?;
    let mut out = String::new();
    dump.value(&value, 0, &mut out)?;
    Ok(out)
}

/// The options of `json.dumps`.
struct Dump {
    ascii: bool,
    sort: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl Dump {
    fn value(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > LAYERS || out.len() > LONGEST {
            let text = format!("tojson: a value of more than {LAYERS} layers, or {LONGEST} bytes");
            return Err(Error::new(ErrorKind::BadSerialization, text));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items(['[', ']'], &items, depth, out, |dump, item, out| {
                    dump.value(item, depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.items(['{', '}'], &keys, depth, out, |dump, key, out| {
                    dump.string(&key.to_string(), out);
                    out.push_str(&dump.key);
                    dump.value(&value.get_item(key)?, depth + 1, out)
                })?;
            }
            kind => {
                let text = format!("tojson: a value of kind {kind} is not JSON");
                return Err(Error::new(ErrorKind::BadSerialization, text));
            }
        }
        Ok(())
    }

    fn items(
        &self,
        [open, close]: [char; 2],
        items: &[Value],
        depth: usize,
        out: &mut String,
        each: impl Fn(&Dump, &Value, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(&self.item);
            }
            self.line(depth + 1, out);
            each(self, item, out)?;
        }
        if !items.is_empty() {
            self.line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c if self.ascii && !(' '..='~').contains(&c) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
