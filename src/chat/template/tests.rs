//! Templates that would not end, or end the process.

use super::*;
use crate::chat::Role;

fn rendered(source: &str) -> Result<String, ChatError> {
    let special = SpecialTokens::default();
    let template = Template::new("t", source, special, ZonedDateTime::default())?;
    let message = Message {
        role: Role::User,
        content: "hello".into(),
    };
    template.render(&[message], Variables::default())
}

#[test]
fn long_expressions_are_computed() {
    for (unit, count, expected) in [("+1", 20_000, "20001"), ("|int", 3_000, "1")] {
        let source = format!("{{{{ 1{} }}}}", unit.repeat(count));
        assert_eq!(rendered(&source).unwrap(), expected);
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let source = " ".repeat(LONGEST + 1);
    let error = rendered(&source).unwrap_err().to_string();
    assert_eq!(
        error,
        "t:1: the chat template cannot be read: it has 65537 bytes, of 65536 at most"
    );
}

#[test]
fn values_that_hold_themselves_are_cut_short() {
    let itself = "{% set ns = namespace() %}{% set ns.a = ns %}";
    for printed in ["{{ ns }}", "{{ ns|string }}"] {
        let text = rendered(&format!("{itself}{printed}")).unwrap();
        assert!(text.contains("..."), "{text}");
    }
    // Twice in each layer: longer than anything is allowed to be.
    let twice = format!("{itself}{{% set ns.b = ns %}}");
    assert!(rendered(&format!("{twice}{{{{ ns }}}}")).is_err());
    let json = rendered(&format!("{itself}{{{{ ns|tojson }}}}"));
    assert!(matches!(json, Err(ChatError::Render { .. })));
}

#[test]
fn deep_values_are_printed_and_compared() {
    let deep = "{% set ns = namespace() %}{% set ns.a = [] %}{% set ns.b = [] %}\
        {% for i in range(50000) %}{% set ns.a = [ns.a] %}{% set ns.b = [ns.b] %}{% endfor %}";
    let printed = rendered(&format!("{deep}{{{{ ns.a }}}}")).unwrap();
    assert!(printed.starts_with("[[[[") && printed.contains("..."));
    assert_eq!(
        rendered(&format!("{deep}{{{{ ns.a == ns.b }}}}")).unwrap(),
        "True"
    );
}

#[test]
fn work_is_bounded() {
    let range = "range(10000)";
    let source = format!(
        "{{% for i in {range} %}}{{% for j in {range} %}}{{% set x = i + j %}}{{% endfor %}}{{% endfor %}}"
    );
    assert!(matches!(rendered(&source), Err(ChatError::Render { .. })));
}
