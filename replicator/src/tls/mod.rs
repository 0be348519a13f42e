//! Links between members: who is at the other end, and that nobody else listens.
//!
//! Each member has a key pair of its own with a self-signed certificate, made by `hadrian keygen`.
//! The configuration, which all members share, pins every member's fingerprint: the SHA-256
//! hash of the certificate. There is no authority and no expiry to forget; a stolen key is
//! replaced by a new line in the file.
//!
//! A caller first says in the clear which resource it means and who it is, because the called
//! daemon must route it to the resource's thread. Then TLS 1.3 proves it, and both sides repeat
//! their preamble inside, so that nobody on the way can have changed a word of it.

mod keys;

pub use keys::{Fingerprint, LinkKeys, generate, pair_paths};

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::wire::{PREAMBLE_LEN, Preamble, PreambleError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::driver::LinkStream;

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
    /// There is a key or a certificate already.
    #[error("{} exists already; keys are never overwritten, move it away first", .0.display())]
    Exists(PathBuf),
    /// Others can read the key.
    #[error(
        "{} has mode {mode:o}: others than its owner can use it; chmod 600 it, or make a new pair",
        .path.display()
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The other side does not know this member's key.
    #[error(
        "the other side turned this member's key away; its configuration must pin {own} for this \
         member"
    )]
    TurnedAway {
        /// The fingerprint of this member's certificate.
        own: Fingerprint,
    },
    /// Not a fingerprint.
    #[error("{0:?} is no fingerprint; write it as `hadrian keygen` prints it, sha256:…")]
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

impl TlsError {
    /// Whether somebody must change configuration or keys: calling again is of no use.
    #[must_use]
    pub fn needs_somebody(&self) -> bool {
        match self {
            Self::Io(error) => alert_or_refusal(error).is_some(),
            _ => true,
        }
    }
}

fn alert_or_refusal(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// What rustls says, in the words of a member: the side that is turned away hears only an alert.
fn in_words(error: TlsError, own: Option<Fingerprint>) -> TlsError {
    match (&error, own) {
        (TlsError::Io(io), Some(own))
            if matches!(alert_or_refusal(io), Some(rustls::Error::AlertReceived(_))) =>
        {
            TlsError::TurnedAway { own }
        }
        _ => error,
    }
}

/// AES-128 first: on links as fast as disks the cipher counts.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

impl LinkKeys {
    fn pin(&self, member: MemberId) -> Result<Pin, TlsError> {
        Ok(Pin { fingerprint: self.pinned(member)?, provider: provider() })
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
    stream: TcpStream,
    resource: ResourceId,
    me: MemberId,
    other: MemberId,
    keys: &LinkKeys,
) -> Result<LinkStream, TlsError> {
    let result = call(stream, resource, me, other, keys).await;
    result.map_err(|error| in_words(error, keys.own()))
}

async fn call(
    mut stream: TcpStream,
    resource: ResourceId,
    me: MemberId,
    other: MemberId,
    keys: &LinkKeys,
) -> Result<LinkStream, TlsError> {
    let ours = Preamble::ours(resource, me);
    stream.write_all(&ours.encode()).await?;
    let mut stream = match keys.pair() {
        None => LinkStream::Plain(stream),
        Some(pair) => {
            let config = ClientConfig::builder_with_provider(provider())
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
    let result = take(stream, resource, me, other, keys).await;
    result.map_err(|error| in_words(error, keys.own()))
}

async fn take(
    stream: TcpStream,
    resource: ResourceId,
    me: MemberId,
    other: MemberId,
    keys: &LinkKeys,
) -> Result<LinkStream, TlsError> {
    let mut stream = match keys.pair() {
        None => LinkStream::Plain(stream),
        Some(pair) => {
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_client_cert_verifier(Arc::new(keys.pin(other)?))
                .with_single_cert(vec![pair.certificate.clone()], pair.key.clone_key())?;
            // Links live long; a ticket would only be a second way in.
            config.send_tls13_tickets = 0;
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
mod tests;
