//! Real peers: synchronous crates built on `Read` and `Write` work on goroutines unchanged.

mod common;

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

use common::at_1_2_4;
use oxigo::{
    go,
    net::{TcpListener, TcpStream},
    scope,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};

/// Serves connections on a port of its own until so many have come.
fn serve(connections: usize, handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    go(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            let handle = Arc::clone(&handle);
            go(move || handle(stream));
        }
    });
    address
}

/// A certificate for `localhost` that signs itself, and configurations that trust it.
fn tls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

#[test]
fn rustls_on_both_sides() {
    let (server, client) = tls();
    at_1_2_4(|| {
        const CLIENTS: usize = 5;
        let server = Arc::clone(&server);
        let address = serve(CLIENTS, move |mut socket| {
            let mut connection = ServerConnection::new(Arc::clone(&server)).unwrap();
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut message).unwrap();
            message.reverse();
            stream.write_all(&message).unwrap();
            connection.send_close_notify();
            connection.write_tls(&mut socket).unwrap();
        });
        scope(|s| {
            for n in 0..CLIENTS {
                let client = Arc::clone(&client);
                s.go(move || {
                    let mut socket = TcpStream::connect(address).unwrap();
                    let name = ServerName::try_from("localhost").unwrap();
                    let mut connection = ClientConnection::new(client, name).unwrap();
                    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
                    let message: Vec<u8> = (0..100_000 + n).map(|i| (i * 7) as u8).collect();
                    stream.write_all(&(message.len() as u32).to_le_bytes()).unwrap();
                    stream.write_all(&message).unwrap();
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer).unwrap();
                    assert!(answer.iter().eq(message.iter().rev()), "the message comes back, backwards");
                });
            }
        });
    });
}

#[test]
fn tungstenite_echo() {
    use tungstenite::{Message, accept, client};
    at_1_2_4(|| {
        let address = serve(1, |stream| {
            let mut socket = accept(stream).unwrap();
            loop {
                match socket.read() {
                    Ok(message) if message.is_text() || message.is_binary() => socket.send(message).unwrap(),
                    Ok(_) => {}
                    Err(tungstenite::Error::ConnectionClosed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let stream = TcpStream::connect(address).unwrap();
        let (mut socket, _) = client(format!("ws://{address}/"), stream).unwrap();
        for message in [Message::text("hello"), Message::binary(vec![7; 200_000])] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    });
}

/// The status and the body of what a `GET` brings.
fn http_get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(&bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(head) = status else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    Ok((response.code.unwrap(), bytes[head..].to_vec()))
}

/// Answers one request with its own path.
fn http_answer(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 64];
        let n = stream.read(&mut piece).unwrap();
        assert_ne!(n, 0, "a request ends before its client goes");
        bytes.extend_from_slice(&piece[..n]);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(&bytes).unwrap().is_complete() {
            let path = request.path.unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()).unwrap();
            return;
        }
    }
}

#[test]
fn httparse_get() {
    at_1_2_4(|| {
        let address = serve(10, http_answer);
        scope(|s| {
            for n in 0..10 {
                s.go(move || {
                    let path = format!("/page/{n}");
                    assert_eq!(http_get(address, &path).unwrap(), (200, path.into_bytes()));
                });
            }
        });
    });
}
