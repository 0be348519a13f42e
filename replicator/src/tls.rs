//! Links between members: who is at the other end, and that nobody else listens.
//!
//! Each member has a key pair of its own with a self-signed certificate, made by `hadrian keygen`.
//! The configuration, which all members share, pins every member's fingerprint: the blake3 hash of
//! the certificate. There is no authority and no expiry to forget; a stolen key is replaced by a
//! new line in the file.
//!
//! A caller first says in the clear which resource it means and who it is, because the called
//! daemon must route it to the resource's thread. Then TLS 1.3 proves it, and both sides repeat
//! their preamble inside, so that nobody on the way can have changed a word of it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::wire::{PREAMBLE_LEN, Preamble, PreambleError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::driver::LinkStream;

/// The hash by which a member's certificate is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

const PREFIX: &str = "blake3:";

/// Why keys cannot be used, or a link cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A key file holds no key or certificate.
    #[error("{} holds no usable {what}; make a pair with `hadrian keygen`", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Not a fingerprint.
    #[error("{0:?} is no fingerprint; write it as `hadrian keygen` prints it, blake3:…")]
    Fingerprint(String),
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The introduction failed.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
    /// Somebody else answered, or changed what was said.
    #[error("the other side is {found}, expected {expected}; check the addresses")]
    Stranger {
        /// Who it says it is.
        found: MemberId,
        /// Who was expected.
        expected: MemberId,
    },
    /// It speaks about another resource.
    #[error("the other side speaks about another resource; the configuration files differ")]
    Resource,
    /// No fingerprint is pinned for the member.
    #[error("no fingerprint is configured for {0}")]
    Unpinned(MemberId),
    /// A key pair cannot be made.
    #[error("a key pair cannot be made: {0}")]
    Generate(#[from] rcgen::Error),
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(*blake3::hash(certificate).as_bytes())
    }

    /// Reads it as `hadrian keygen` prints it.
    ///
    /// # Errors
    /// [`TlsError::Fingerprint`]
    pub fn parse(text: &str) -> Result<Self, TlsError> {
        let wrong = || TlsError::Fingerprint(text.into());
        let hex = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        blake3::Hash::from_hex(hex).map(|hash| Self(*hash.as_bytes())).map_err(|_| wrong())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", blake3::Hash::from_bytes(self.0).to_hex())
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
/// [`TlsError`]; existing files are never overwritten.
pub fn generate(dir: &Path, member: &str) -> Result<Fingerprint, TlsError> {
    let pair = rcgen::generate_simple_self_signed([member.to_string()])?;
    let (key, certificate) = pair_paths(dir, member);
    fs::create_dir_all(dir).map_err(|source| TlsError::File { path: dir.into(), source })?;
    let put = |path: &Path, mode, text: String| {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|source| TlsError::File { path: path.into(), source })
    };
    put(&key, 0o600, pair.signing_key.serialize_pem())?;
    put(&certificate, 0o644, pair.cert.pem())?;
    Ok(Fingerprint::of(pair.cert.der()))
}

/// How this member proves itself and knows the others.
#[derive(Debug)]
pub struct LinkKeys {
    pair: Option<Pair>,
    pinned: BTreeMap<MemberId, Fingerprint>,
}

#[derive(Debug)]
struct Pair {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
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
    /// [`TlsError`]
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
        let certificate = CertificateDer::from_pem_slice(&read(certificate)?)
            .map_err(|_| pem(certificate, "certificate"))?;
        Ok(Self { pair: Some(Pair { certificate, key: key_der }), pinned })
    }

    /// The fingerprint of this member's own certificate.
    #[must_use]
    pub fn own(&self) -> Option<Fingerprint> {
        self.pair.as_ref().map(|pair| Fingerprint::of(&pair.certificate))
    }

    fn pin(&self, member: MemberId) -> Result<Pin, TlsError> {
        let fingerprint = self.pinned.get(&member).copied().ok_or(TlsError::Unpinned(member))?;
        Ok(Pin { fingerprint, provider: Arc::new(ring::default_provider()) })
    }
}

/// Accepts exactly one certificate.
#[derive(Debug)]
struct Pin {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let found = Fingerprint::of(certificate);
        if found == self.fingerprint {
            return Ok(());
        }
        let expected = self.fingerprint;
        Err(rustls::Error::General(format!(
            "the other side's certificate is {found}, the configuration pins {expected}"
        )))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn no_tls12() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken here".into())
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// The caller's side of an introduction.
///
/// # Errors
/// [`TlsError`]
pub async fn introduce_caller(
    mut stream: TcpStream,
    resource: ResourceId,
    me: MemberId,
    other: MemberId,
    keys: &LinkKeys,
) -> Result<LinkStream, TlsError> {
    let ours = Preamble::ours(resource, me);
    stream.write_all(&ours.encode()).await?;
    let mut stream = match &keys.pair {
        None => LinkStream::Plain(stream),
        Some(pair) => {
            let provider = Arc::new(ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(keys.pin(other)?))
                .with_client_auth_cert(vec![pair.certificate.clone()], pair.key.clone_key())?;
            // The name is not looked at: the certificate itself is pinned.
            let name = ServerName::try_from("hadrian.invalid").map_err(io::Error::other)?;
            let connector = TlsConnector::from(Arc::new(config));
            LinkStream::Tls(Box::new(connector.connect(name, stream).await?.into()))
        }
    };
    repeat(&mut stream, ours, other, resource).await?;
    Ok(stream)
}

/// The called side of an introduction; the caller's first preamble was read by the listener.
///
/// # Errors
/// [`TlsError`]
pub async fn introduce_called(
    stream: TcpStream,
    resource: ResourceId,
    me: MemberId,
    other: MemberId,
    keys: &LinkKeys,
) -> Result<LinkStream, TlsError> {
    let mut stream = match &keys.pair {
        None => LinkStream::Plain(stream),
        Some(pair) => {
            let provider = Arc::new(ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_client_cert_verifier(Arc::new(keys.pin(other)?))
                .with_single_cert(vec![pair.certificate.clone()], pair.key.clone_key())?;
            let acceptor = TlsAcceptor::from(Arc::new(config));
            LinkStream::Tls(Box::new(acceptor.accept(stream).await?.into()))
        }
    };
    repeat(&mut stream, Preamble::ours(resource, me), other, resource).await?;
    Ok(stream)
}

/// Both sides say once more, now unseen and unchanged, who they are and what they speak.
async fn repeat<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    ours: Preamble,
    expected: MemberId,
    resource: ResourceId,
) -> Result<(), TlsError> {
    stream.write_all(&ours.encode()).await?;
    stream.flush().await?;
    let mut bytes = [0; PREAMBLE_LEN];
    stream.read_exact(&mut bytes).await?;
    let theirs = Preamble::parse(&bytes)?;
    ours.negotiate(&theirs)?;
    if theirs.resource != resource {
        return Err(TlsError::Resource);
    }
    if theirs.member != expected {
        return Err(TlsError::Stranger { found: theirs.member, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn member(index: u8) -> MemberId {
        MemberId::new(index).unwrap()
    }

    fn keys(dir: &Path, name: &str, pins: &[(u8, Fingerprint)]) -> LinkKeys {
        let (key, certificate) = pair_paths(dir, name);
        let pinned = pins.iter().map(|(index, print)| (member(*index), *print)).collect();
        LinkKeys::load(&key, &certificate, pinned).unwrap()
    }

    async fn meet(
        caller: &LinkKeys,
        called: &LinkKeys,
    ) -> (Result<LinkStream, TlsError>, Result<LinkStream, TlsError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let resource = ResourceId::derive("orders", "db");
        let call = async {
            let stream = TcpStream::connect(address).await?;
            introduce_caller(stream, resource, member(0), member(1), caller).await
        };
        let take = async {
            let (mut stream, _) = listener.accept().await?;
            let mut first = [0; PREAMBLE_LEN];
            stream.read_exact(&mut first).await?;
            introduce_called(stream, resource, member(1), member(0), called).await
        };
        tokio::join!(call, take)
    }

    #[tokio::test]
    async fn members_with_pinned_keys_find_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let alpha = generate(dir.path(), "alpha").unwrap();
        let beta = generate(dir.path(), "beta").unwrap();
        let (caller, called) =
            (keys(dir.path(), "alpha", &[(1, beta)]), keys(dir.path(), "beta", &[(0, alpha)]));
        let (a, b) = meet(&caller, &called).await;
        assert!(matches!((a.unwrap(), b.unwrap()), (LinkStream::Tls(_), LinkStream::Tls(_))));
    }

    #[tokio::test]
    async fn a_key_that_is_not_pinned_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let alpha = generate(dir.path(), "alpha").unwrap();
        let beta = generate(dir.path(), "beta").unwrap();
        let thief = generate(dir.path(), "thief").unwrap();
        let caller = keys(dir.path(), "thief", &[(1, beta)]);
        let called = keys(dir.path(), "beta", &[(0, alpha)]);
        let (_, refused) = meet(&caller, &called).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(&thief.to_string()) && text.contains(&alpha.to_string()), "{text}");
    }

    #[test]
    fn a_fingerprint_reads_back_as_it_is_printed_and_keys_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let print = generate(dir.path(), "alpha").unwrap();
        assert_eq!(Fingerprint::parse(&print.to_string()).unwrap(), print);
        assert!(Fingerprint::parse("sha256:00").is_err());
        assert!(matches!(generate(dir.path(), "alpha"), Err(TlsError::File { .. })));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(dir.path().join("alpha.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
