//! A client that sends and receives raw bytes: AMQP allows content that no careful library sends.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const FRAME_MAX: usize = 131_072;

/// A connection with one channel in confirm mode.
pub(crate) struct Raw {
    stream: TcpStream,
}

/// A received message.
pub(crate) struct Got {
    /// Size of the frame with its content header, in bytes.
    pub(crate) frame: usize,
    /// Flags and properties.
    pub(crate) list: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// Connects. Like all functions here, it blocks.
    pub(crate) fn connect(url: &str) -> Self {
        let url = url::Url::parse(url).expect("a url");
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let address = (
            url.host_str().expect("a host").to_owned(),
            url.port().unwrap_or(5672),
        );
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        let mut raw = Self { stream };
        raw.stream
            .write_all(b"AMQP\x00\x00\x09\x01")
            .expect("it writes");
        raw.expect(0, 10, 10);
        let login = format!(
            "\0{}\0{}",
            decoded(url.username()),
            decoded(url.password().unwrap_or_default())
        );
        let start_ok = [
            vec![0; 4],
            short(b"PLAIN"),
            long(login.as_bytes()),
            short(b"en_US"),
        ];
        raw.method(0, 10, 11, &start_ok.concat());
        raw.expect(0, 10, 30);
        let frame_max = (FRAME_MAX as u32).to_be_bytes();
        raw.method(
            0,
            10,
            31,
            &[&[0, 10], frame_max.as_slice(), &[0, 0]].concat(),
        );
        let vhost = match url.path().trim_start_matches('/') {
            "" => "/".to_owned(),
            vhost => decoded(vhost),
        };
        let open = [short(vhost.as_bytes()).as_slice(), &[0, 0]].concat();
        raw.method(0, 10, 40, &open);
        raw.expect(0, 10, 41);
        raw.method(1, 20, 10, &[0]);
        raw.expect(1, 20, 11);
        raw.method(1, 85, 10, &[0]);
        raw.expect(1, 85, 11);
        raw
    }

    /// Publishes, and waits until the broker has put the message in a queue.
    pub(crate) fn publish(
        &mut self,
        exchange: &[u8],
        routing_key: &[u8],
        list: &[u8],
        body: &[u8],
    ) {
        let publish = [vec![0, 0], short(exchange), short(routing_key), vec![1]];
        self.method(1, 60, 40, &publish.concat());
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        header.extend_from_slice(list);
        self.frame(2, 1, &header);
        for part in body.chunks(FRAME_MAX - 8) {
            self.frame(3, 1, part);
        }
        self.expect(1, 60, 80);
    }

    /// Takes the first message of a queue.
    pub(crate) fn take(&mut self, queue: &[u8]) -> Option<Got> {
        self.method(
            1,
            60,
            70,
            &[&[0, 0], short(queue).as_slice(), &[1]].concat(),
        );
        let (_, _, answer) = self.read();
        match &answer[..4] {
            [0, 60, 0, 72] => return None,
            [0, 60, 0, 71] => {}
            _ => panic!("{}", String::from_utf8_lossy(&answer)),
        }
        let (kind, _, header) = self.read();
        assert_eq!(kind, 2);
        let size = u64::from_be_bytes(header[4..12].try_into().expect("eight bytes"));
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let (kind, _, part) = self.read();
            assert_eq!(kind, 3);
            body.extend(part);
        }
        Some(Got {
            frame: header.len() + 8,
            list: header[12..].to_vec(),
            body,
        })
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend_from_slice(&method.to_be_bytes());
        payload.extend_from_slice(arguments);
        self.frame(1, channel, &payload);
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend_from_slice(&channel.to_be_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame.push(0xce);
        self.stream.write_all(&frame).expect("it writes");
    }

    fn read(&mut self) -> (u8, u16, Vec<u8>) {
        let mut head = [0; 7];
        self.stream
            .read_exact(&mut head)
            .expect("the broker answers");
        let size = u32::from_be_bytes(head[3..].try_into().expect("four bytes")) as usize;
        let mut payload = vec![0; size + 1];
        self.stream.read_exact(&mut payload).expect("a whole frame");
        payload.pop();
        (head[0], u16::from_be_bytes([head[1], head[2]]), payload)
    }

    fn expect(&mut self, channel: u16, class: u16, method: u16) {
        let (kind, on, payload) = self.read();
        let mut wanted = class.to_be_bytes().to_vec();
        wanted.extend_from_slice(&method.to_be_bytes());
        assert!(
            (kind, on) == (1, channel) && payload.starts_with(&wanted),
            "{kind} {on} {}",
            String::from_utf8_lossy(&payload)
        );
    }
}

fn short(text: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(text.len()).expect("a short string")];
    out.extend_from_slice(text);
    out
}

fn long(text: &[u8]) -> Vec<u8> {
    let mut out = (text.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(text);
    out
}

/// A property list written by hand.
#[derive(Debug, Clone, Default)]
pub(crate) struct List {
    flags: u16,
    /// Encoded properties, by the position of their flags.
    parts: std::collections::BTreeMap<u16, Vec<u8>>,
    table: Vec<u8>,
}

impl List {
    /// A text property, by its position among the properties.
    pub(crate) fn text(mut self, place: u16, bytes: &[u8]) -> Self {
        self.flags |= 1 << (15 - place);
        self.parts.insert(place, short(bytes));
        self
    }

    pub(crate) fn correlation_id(self, bytes: &[u8]) -> Self {
        self.text(5, bytes)
    }

    pub(crate) fn reply_to(self, bytes: &[u8]) -> Self {
        self.text(6, bytes)
    }

    pub(crate) fn message_id(self, bytes: &[u8]) -> Self {
        self.text(8, bytes)
    }

    /// A header whose value is `encoded`, with its type tag.
    pub(crate) fn header(mut self, name: &[u8], encoded: &[u8]) -> Self {
        self.table.extend(short(name));
        self.table.extend_from_slice(encoded);
        self
    }

    /// A text header.
    pub(crate) fn text_header(self, name: &[u8], text: &[u8]) -> Self {
        let value = [b"S".as_slice(), &long(text)].concat();
        self.header(name, &value)
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        if !self.table.is_empty() {
            self.flags |= 1 << 13;
            let table = long(&self.table);
            self.parts.insert(2, table);
        }
        let mut list = self.flags.to_be_bytes().to_vec();
        list.extend(self.parts.into_values().flatten());
        list
    }
}

/// This number of nested lists (`A`) or tables (`F`), as a header's value.
pub(crate) fn nested(levels: usize, tag: u8) -> Vec<u8> {
    let per_level = if tag == b'F' { 6 } else { 5 };
    let mut value = Vec::with_capacity(levels * per_level);
    for level in 0..levels {
        if tag == b'F' && level > 0 {
            // An empty name.
            value.push(0);
        }
        value.push(tag);
        let inside = (levels - level - 1) * per_level;
        value.extend_from_slice(&(inside as u32).to_be_bytes());
    }
    value
}
