//! Files that are written whole or not at all.
//!
//! What is written lies beside its destination under another name until it is whole and on the disk. A link's target is
//! written, and permissions stay.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::interrupt;

/// A file that has not taken its name yet. Dropped, or at the end of a process that is told to end, it is removed.
pub struct Part {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Part {
    /// Creates the part of the file that `path` is to become.
    ///
    /// # Errors
    /// Also if a file of the part's name is there already: it is not ours.
    pub fn create(path: &Path) -> io::Result<Part> {
        let there = fs::metadata(path).ok();
        let target = match there {
            Some(_) => fs::canonicalize(path)?,
            None => path.to_path_buf(),
        };
        let Some(name) = target.file_name() else {
            let error = io::ErrorKind::InvalidInput;
            return Err(io::Error::new(error, "not a file name"));
        };
        // In the same folder, so that it takes its name in one step.
        let mut part = OsString::from(name);
        part.push(format!(".part-{}", std::process::id()));
        let path = target.with_file_name(part);
        let file = interrupt::create_unfinished(&path).map_err(|error| {
            let text = format!("{}: {error}", path.display());
            io::Error::new(error.kind(), text)
        })?;
        let part = Part { file, path, target };
        if let Some(there) = there {
            part.file.set_permissions(there.permissions())?;
        }
        Ok(part)
    }

    /// What is written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name: content first, so that nobody ever sees half a file there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if `replaces` is false and something has the name.
    pub fn publish(self, replaces: bool) -> io::Result<()> {
        self.file.sync_all()?;
        if replaces || !self.link()? {
            fs::rename(&self.path, &self.target)?;
        }
        sync_folder(&self.target);
        Ok(())
    }

    /// Gives the file its name as a second one, which cannot replace anything; dropping removes the first. False where
    /// the file system has no links and the name is free: looking first is the best there is.
    fn link(&self) -> io::Result<bool> {
        match fs::hard_link(&self.path, &self.target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) if fs::symlink_metadata(&self.target).is_err() => Ok(false),
            Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed, there is nothing left; and what went wrong before is reported already.
        let _gone_is_fine = fs::remove_file(&self.path);
        interrupt::finished();
    }
}

/// Makes a finished file durable under its final name: content first, then the name. On most systems a name can be
/// replaced atomically, so nobody ever sees half a file there.
pub fn publish(part: &Path, file: &Path) -> io::Result<()> {
    File::open(part)?.sync_all()?;
    fs::rename(part, file)?;
    sync_folder(file);
    Ok(())
}

/// Makes a file's name durable.
fn sync_folder(file: &Path) {
    if let Some(folder) = file.parent() {
        // Not every file system can sync a folder; the name then becomes durable a little later.
        let _best_effort = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Writes a file: all of it, or nothing and the file stays as it was. What is no file, such as a device or a pipe, is
/// written to.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return fs::write(path, bytes);
    }
    let part = Part::create(path)?;
    part.file().write_all(bytes)?;
    part.publish(true)
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
        // What has the part's name already is somebody else's.
        let taken = folder
            .path()
            .join(format!("new.part-{}", std::process::id()));
        fs::write(&taken, "theirs").unwrap();
        let error = write(&new, b"new").unwrap_err();
        assert!(error.to_string().contains("new.part-"), "{error}");
        assert_eq!(fs::read_to_string(&taken).unwrap(), "theirs");
        fs::remove_file(&taken).unwrap();
        let late = Part::create(&new).unwrap();
        write(&new, b"new").unwrap_err();
        late.publish(false).unwrap();
        let late = Part::create(&new).unwrap();
        assert_eq!(
            late.publish(false).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        write(&new, b"new").unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), "new");
        assert!(check(folder.path()).is_err());
        assert!(write(&folder.path().join("none/new"), b"new").is_err());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, if cfg!(unix) { 3 } else { 2 });
    }
}
