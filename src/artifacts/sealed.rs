//! Contents that nobody can change any more, this process included: what is mapped once it is verified.
//!
//! On Linux, a file in memory with all seals (`memfd_create(2)`, `fcntl(2)`: `F_SEAL_WRITE`, `F_SEAL_SHRINK`,
//! `F_SEAL_GROW`, `F_SEAL_SEAL`): the kernel refuses every write to it from then on, by whatever descriptor, and no
//! page of a mapping can go. Elsewhere, bytes that are shared and never written to.

#[cfg(target_os = "linux")]
pub(crate) use of_linux::{SealedFile, Unsealed};

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::{SealedFile, Unsealed};

#[cfg(target_os = "linux")]
mod of_linux {
    use std::fs::File;
    use std::io::{self, Write};

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

    const ALL: SealFlags = SealFlags::SEAL
        .union(SealFlags::SHRINK)
        .union(SealFlags::GROW)
        .union(SealFlags::WRITE);

    /// A file in memory that is being written.
    pub(crate) struct Unsealed(File);

    impl Unsealed {
        pub fn new() -> io::Result<Self> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = memfd_create("wasm-pool artifact", flags)?;
            Ok(Self(file.into()))
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all(bytes)
        }

        pub fn seal(self) -> io::Result<SealedFile> {
            fcntl_add_seals(&self.0, ALL)?;
            Ok(SealedFile(self.0))
        }
    }

    /// A file that has all seals.
    #[derive(Debug)]
    pub(crate) struct SealedFile(File);

    impl SealedFile {
        /// This file, if it has them.
        pub fn of(file: &File) -> Option<Self> {
            let seals = fcntl_get_seals(file).ok()?;
            let sealed = seals.contains(ALL);
            sealed.then(|| file.try_clone().ok().map(Self)).flatten()
        }

        pub fn file(&self) -> &File {
            &self.0
        }

        pub fn try_clone(&self) -> io::Result<Self> {
            Ok(Self(self.0.try_clone()?))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_sealed_is_written_to_by_nobody() {
            let mut file = Unsealed::new().unwrap();
            file.write(b"whole").unwrap();
            let open = file.0.try_clone().unwrap();
            assert!(SealedFile::of(&open).is_none());
            let sealed = file.seal().unwrap();
            let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
            let again = File::options().write(true).open(again).unwrap();
            for mut file in [open, again] {
                assert!(file.write(b"x").is_err());
                assert!(file.set_len(1).is_err());
                assert!(file.set_len(9).is_err());
            }
            assert!(SealedFile::of(sealed.file()).is_some());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::io;
    use std::sync::Arc;

    /// Bytes that are being written.
    pub(crate) struct Unsealed(Vec<u8>);

    impl Unsealed {
        pub fn new() -> io::Result<Self> {
            Ok(Self(Vec::new()))
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }

        pub fn seal(self) -> io::Result<SealedFile> {
            Ok(SealedFile(self.0.into()))
        }
    }

    /// Bytes that nobody writes to.
    #[derive(Debug)]
    pub(crate) struct SealedFile(Arc<[u8]>);

    impl SealedFile {
        pub fn bytes(&self) -> &Arc<[u8]> {
            &self.0
        }

        pub fn try_clone(&self) -> io::Result<Self> {
            Ok(Self(self.0.clone()))
        }
    }
}
