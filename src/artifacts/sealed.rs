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

    use crate::artifacts::store::StoredArtifact;

    const ALL: SealFlags = SealFlags::SEAL
        .union(SealFlags::SHRINK)
        .union(SealFlags::GROW)
        .union(SealFlags::WRITE);

    /// A file in memory that is being written.
    pub(crate) struct Unsealed(File);

    impl Unsealed {
        /// For so many bytes.
        pub fn new(_: u64) -> io::Result<Self> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = memfd_create("wasm-pool artifact", flags)?;
            Ok(Self(file.into()))
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write_all(bytes)
        }

        /// For whoever else writes it.
        pub fn file(&self) -> &File {
            &self.0
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

        /// Shared, not copied.
        pub fn stored(&self) -> io::Result<StoredArtifact> {
            Ok(StoredArtifact::file(self.0.try_clone()?))
        }

        pub fn size(&self) -> io::Result<u64> {
            Ok(self.0.metadata()?.len())
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_sealed_is_written_to_by_nobody() {
            let mut file = Unsealed::new(5).unwrap();
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

    use crate::artifacts::store::StoredArtifact;

    /// Bytes that are being written.
    pub(crate) struct Unsealed {
        bytes: Arc<[u8]>,
        written: usize,
    }

    impl Unsealed {
        /// For so many bytes, and no more: they are there at once, and never twice.
        pub fn new(bytes: u64) -> io::Result<Self> {
            let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
            Ok(Self {
                bytes: std::iter::repeat_n(0, bytes).collect(),
                written: 0,
            })
        }

        pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            let end = self.written.saturating_add(bytes.len());
            let all = Arc::get_mut(&mut self.bytes).ok_or(io::ErrorKind::ResourceBusy)?;
            let room = all.get_mut(self.written..end);
            room.ok_or(io::ErrorKind::WriteZero)?.copy_from_slice(bytes);
            self.written = end;
            Ok(())
        }

        pub fn seal(self) -> io::Result<SealedFile> {
            match self.written == self.bytes.len() {
                true => Ok(SealedFile(self.bytes)),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Bytes that nobody writes to.
    #[derive(Debug)]
    pub(crate) struct SealedFile(Arc<[u8]>);

    impl SealedFile {
        /// These, which are shared: nobody can write to them.
        pub fn of_bytes(bytes: &Arc<[u8]>) -> Self {
            Self(bytes.clone())
        }

        pub fn bytes(&self) -> &Arc<[u8]> {
            &self.0
        }

        pub fn try_clone(&self) -> io::Result<Self> {
            Ok(Self(self.0.clone()))
        }

        /// Shared, not copied.
        pub fn stored(&self) -> io::Result<StoredArtifact> {
            Ok(StoredArtifact::bytes(self.0.clone()))
        }

        pub fn size(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
    }
}
