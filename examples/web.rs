//! cargo run --release --example web -- [--addr 127.0.0.1:8000] [--cert cert.pem --key key.pem]
//!
//! A web server: a goroutine for each connection, plain blocking code, and with a certificate the same over TLS, since rustls reads and
//! writes a `TcpStream` of ours as it would one of `std`. `GET /` greets, `GET /bytes/N` gives N bytes, `POST /echo` gives back what it
//! got. Try it with curl: `curl -d hello http://127.0.0.1:8000/echo`.

mod common;

use std::{
    error::Error,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    sync::Arc,
    time::Duration,
};

use oxigo::net::{TcpListener, TcpStream};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A client that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_HEAD: u64 = 16 * 1024;
const LONGEST_BODY: usize = 64 << 20;

/// What is asked for.
struct Request {
    method: String,
    path: String,
    body: usize,
    /// The client waits to be told that its body is wanted.
    expects: bool,
    /// The connection is wanted for more.
    keep: bool,
}

/// Reads up to the empty line after a request. None: the client has no more of them.
fn request(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let room = LONGEST_HEAD - head.len() as u64;
        if stream.take(room).read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let header = |name| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map_or("", |header| str::from_utf8(header.value).unwrap_or("").trim())
    };
    let connection = header("Connection");
    Ok(Some(Request {
        method: parsed.method.unwrap_or("").to_owned(),
        path: parsed.path.unwrap_or("").to_owned(),
        body: match header("Content-Length") {
            "" => 0,
            length => length.parse().map_err(io::Error::other)?,
        },
        expects: header("Expect").eq_ignore_ascii_case("100-continue"),
        keep: match parsed.version {
            Some(1) => !connection.eq_ignore_ascii_case("close"),
            _ => connection.eq_ignore_ascii_case("keep-alive"),
        },
    }))
}

/// The status and the body of the answer.
fn answer(request: &Request, body: Vec<u8>) -> (&'static str, Vec<u8>) {
    match (&*request.method, &*request.path) {
        ("GET" | "HEAD", "/") => ("200 OK", b"hello from a goroutine\n".to_vec()),
        ("POST", "/echo") => ("200 OK", body),
        ("GET" | "HEAD", path) => match path.strip_prefix("/bytes/").map(str::parse) {
            Some(Ok(count)) if count <= LONGEST_BODY => ("200 OK", vec![b'x'; count]),
            _ => ("404 Not Found", b"no such page\n".to_vec()),
        },
        _ => ("405 Method Not Allowed", b"no such method\n".to_vec()),
    }
}

/// Serves one connection, whatever it is made of.
fn serve(stream: impl Read + Write) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream)? {
        if request.body > LONGEST_BODY {
            let refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.get_mut().write_all(refusal);
        }
        if request.expects {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            stream.get_mut().flush()?;
        }
        let mut body = vec![0; request.body];
        stream.read_exact(&mut body)?;
        let (status, body) = answer(&request, body);
        let connection = if request.keep { "keep-alive" } else { "close" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n", body.len());
        let mut out = head.into_bytes();
        if request.method != "HEAD" {
            out.extend(body);
        }
        stream.get_mut().write_all(&out)?;
        stream.get_mut().flush()?;
        if !request.keep {
            break;
        }
    }
    Ok(())
}

/// Serves one connection, over TLS when there is a configuration for it.
fn handle(connection: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    let Some(config) = tls else { return serve(connection) };
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, connection);
    serve(&mut stream)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn configuration(cert: &str, key: &str) -> Result<ServerConfig, Box<dyn Error + Send + Sync>> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?)
}

#[oxigo::main]
fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut addr = "127.0.0.1:8000".to_owned();
    let (mut cert, mut key) = (None, None);
    common::options("web [--addr ADDRESS:PORT] [--cert FILE.pem --key FILE.pem]", |name, value| {
        match name {
            "--addr" => addr = value.to_owned(),
            "--cert" => cert = Some(value.to_owned()),
            "--key" => key = Some(value.to_owned()),
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    });
    let tls = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(Arc::new(configuration(&cert, &key)?)),
        _ => return Err("a certificate and its key belong together".into()),
    };
    common::raise_descriptor_limit();

    let listener = TcpListener::bind(&addr)?;
    println!("web listens on {}", listener.local_addr()?);
    loop {
        match listener.accept() {
            Ok((connection, peer)) => {
                let tls = tls.clone();
                oxigo::go(move || {
                    if let Err(error) = handle(connection, tls) {
                        eprintln!("{peer}: {error}");
                    }
                });
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}
