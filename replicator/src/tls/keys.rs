//! Key pairs and the hashes by which they are known.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hadrian_protocol::ids::MemberId;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use super::TlsError;

const PREFIX: &str = "sha256:";

/// The SHA-256 hash of a member's certificate (DER), as `openssl x509 -fingerprint -sha256` shows
/// it too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Reads it as `hadrian keygen` prints it, or as openssl does: upper case and colons do not
    /// matter.
    ///
    /// # Errors
    /// [`TlsError::Fingerprint`]
    pub fn parse(text: &str) -> Result<Self, TlsError> {
        let wrong = || TlsError::Fingerprint(text.into());
        let digits: String =
            text.strip_prefix(PREFIX).unwrap_or(text).chars().filter(|c| *c != ':').collect();
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| wrong())?;
        Ok(Self(hash))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Where a member's pair lies: NAME.key and NAME.crt.
#[must_use]
pub fn pair_paths(dir: &Path, member: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{member}.key")), dir.join(format!("{member}.crt")))
}

/// Makes a key pair for `member` in `dir`; the key is readable by its owner only.
///
/// # Errors
/// [`TlsError`]; existing files are never overwritten, and where one of the two exists nothing is
/// written.
pub fn generate(dir: &Path, member: &str) -> Result<Fingerprint, TlsError> {
    let pair = rcgen::generate_simple_self_signed([member.to_string()])?;
    let (key, certificate) = pair_paths(dir, member);
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::File { path, source }
    };
    fs::create_dir_all(dir).map_err(file(dir))?;
    if let Some(existing) = [&key, &certificate].into_iter().find(|path| path.exists()) {
        return Err(TlsError::Exists(existing.clone()));
    }
    let put = |path: &Path, mode, text: String| {
        let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        made.and_then(|mut made| made.write_all(text.as_bytes()).and_then(|()| made.sync_all()))
            .map_err(file(path))
    };
    put(&key, 0o600, pair.signing_key.serialize_pem())?;
    put(&certificate, 0o644, pair.cert.pem())?;
    // Their names survive a power loss only with the folder.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(file(dir))?;
    Ok(Fingerprint::of(pair.cert.der()))
}

/// How this member proves itself and knows the others.
#[derive(Debug)]
pub struct LinkKeys {
    pair: Option<Pair>,
    pinned: BTreeMap<MemberId, Fingerprint>,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl LinkKeys {
    /// No keys: links are readable and writable by anybody on the way.
    #[must_use]
    pub fn plaintext() -> Self {
        Self { pair: None, pinned: BTreeMap::new() }
    }

    /// The pair in these files, and the fingerprints of the others.
    ///
    /// # Errors
    /// [`TlsError`]; [`TlsError::Open`] for a key that others than its owner can read.
    pub fn load(
        key: &Path,
        certificate: &Path,
        pinned: BTreeMap<MemberId, Fingerprint>,
    ) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
        };
        let pem = |path: &Path, what| TlsError::Pem { path: path.into(), what };
        let key_der =
            PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| pem(key, "private key"))?;
        let mode = fs::metadata(key)
            .map_err(|source| TlsError::File { path: key.into(), source })?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(TlsError::Open { path: key.into(), mode: mode & 0o777 });
        }
        let certificate = CertificateDer::from_pem_slice(&read(certificate)?)
            .map_err(|_| pem(certificate, "certificate"))?;
        Ok(Self { pair: Some(Pair { certificate, key: key_der }), pinned })
    }

    /// The fingerprint of this member's own certificate.
    #[must_use]
    pub fn own(&self) -> Option<Fingerprint> {
        self.pair.as_ref().map(|pair| Fingerprint::of(&pair.certificate))
    }

    pub(super) fn pair(&self) -> Option<&Pair> {
        self.pair.as_ref()
    }

    pub(super) fn pinned(&self, member: MemberId) -> Result<Fingerprint, TlsError> {
        self.pinned.get(&member).copied().ok_or(TlsError::Unpinned(member))
    }
}
