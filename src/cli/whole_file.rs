//! Files that are written whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::source::publish;

/// Writes a file: all of it, or nothing and the file stays as it was. A link's target is written, and permissions stay;
/// what is no file, such as a device or a pipe, is written to.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let there = fs::metadata(path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return fs::write(path, bytes);
    }
    let target = match there {
        Some(_) => fs::canonicalize(path)?,
        None => path.to_path_buf(),
    };
    let Some(name) = target.file_name() else {
        let error = io::ErrorKind::InvalidInput;
        return Err(io::Error::new(error, "not a file name"));
    };
    // In the same folder, so that renaming it is one step.
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    let part = target.with_file_name(part);
    let written = File::create(&part)
        .and_then(|mut file| {
            if let Some(there) = there {
                file.set_permissions(there.permissions())?;
            }
            file.write_all(bytes)
        })
        .and_then(|()| publish(&part, &target));
    if written.is_err() {
        // What went wrong is reported; that the remains stay is not worth a second report.
        let _remains = fs::remove_file(&part);
    }
    written
}

/// Fails now if a file could not be written later. Nothing is changed.
pub fn check(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok() {
        File::options().append(true).open(path)?;
        return Ok(());
    }
    File::create_new(path)?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_stays_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, new] = ["file", "link", "new"].map(|name| folder.path().join(name));
        fs::write(&file, "old").unwrap();
        check(&file).unwrap();
        check(&new).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert!(!new.exists());
        #[cfg(unix)]
        {
            use std::os::unix::fs::{PermissionsExt, symlink};
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            symlink(&file, &link).unwrap();
            write(&link, b"new").unwrap();
            assert!(link.is_symlink());
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(fs::read_to_string(&file).unwrap(), "new");
            write(Path::new("/dev/null"), b"gone").unwrap();
            assert!(!fs::metadata("/dev/null").unwrap().is_file());
        }
        write(&new, b"new").unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), "new");
        assert!(check(folder.path()).is_err());
        assert!(write(&folder.path().join("none/new"), b"new").is_err());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, if cfg!(unix) { 3 } else { 2 });
    }
}
