//! An HTTP server on the loopback that plays an origin, well-behaved or not. It counts what it is asked for.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// How a request is answered.
pub enum Answer {
    /// From the byte that was asked for, as a server that knows Range does (416 behind the end).
    Ranged,
    /// The whole file, whatever was asked for.
    Whole,
    /// So many bytes of the whole file, then the connection ends.
    CutAfter(usize),
    /// So many bytes of the whole file, then nothing until a word comes (or its sender is dropped), then the rest.
    PauseAfter(usize, mpsc::Receiver<()>),
    /// This status and nothing else.
    Status(u16),
}

/// The server; its thread ends with the test's process.
pub struct Origin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
}

impl Origin {
    /// Serves `bytes` under every path: the first request gets the first answer, and so on; the last one repeats.
    pub fn new(bytes: &[u8], answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (noted, bytes) = (Arc::clone(&asked), bytes.to_owned());
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            let mut answer = answers.next().unwrap();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let start = start_of_range(&stream);
                noted.lock().unwrap().push(start);
                // The client may be gone: interrupted, or its disk full. That is no matter of this side.
                let _ = reply(&mut stream, &answer, &bytes, start);
                answer = answers.next().unwrap_or(answer);
            }
        });
        Self { address, asked }
    }

    /// The address of `file`.
    pub fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.address)
    }

    /// One entry for each request so far: the byte that it asked to begin with, if it asked.
    pub fn asked(&self) -> Vec<Option<u64>> {
        self.asked.lock().unwrap().clone()
    }
}

/// An address of the loopback at which nobody listens.
pub fn nobody(file: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/{file}", listener.local_addr().unwrap())
}

fn start_of_range(stream: &TcpStream) -> Option<u64> {
    let mut start = None;
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().ok();
        }
    }
    start
}

fn reply(stream: &mut TcpStream, answer: &Answer, bytes: &[u8], start: Option<u64>) -> std::io::Result<()> {
    let length = bytes.len();
    match answer {
        Answer::Status(status) => head(stream, *status, 0, ""),
        Answer::Ranged => match start.map(|start| usize::try_from(start).unwrap()) {
            Some(start) if start >= length => head(stream, 416, 0, ""),
            Some(start) => {
                let range = format!("Content-Range: bytes {start}-{}/{length}\r\n", length - 1);
                head(stream, 206, length - start, &range)?;
                stream.write_all(&bytes[start..])
            }
            None => head(stream, 200, length, "").and_then(|()| stream.write_all(bytes)),
        },
        Answer::Whole => head(stream, 200, length, "").and_then(|()| stream.write_all(bytes)),
        Answer::CutAfter(count) => {
            head(stream, 200, length, "").and_then(|()| stream.write_all(&bytes[..*count]))
        }
        Answer::PauseAfter(count, go_on) => {
            head(stream, 200, length, "")?;
            stream.write_all(&bytes[..*count])?;
            // The time only ends a test that hangs.
            let _ = go_on.recv_timeout(Duration::from_secs(60));
            stream.write_all(&bytes[*count..])
        }
    }
}

fn head(stream: &mut TcpStream, status: u16, length: usize, more: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} -\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n")
}
