//! The part of protocol buffers' wire format that ONNX needs.
//!
//! A field is a key (its number and how its value is written) and the value. The numbers are those
//! of `onnx.proto`, and are written where they are used. This is two hundred lines; prost with
//! generated code would be a thousand more, a dependency, and every tensor twice in memory.

/// The type of a tensor's elements, in files.
#[derive(Clone, Copy)]
pub(super) enum Element {
    F32 = 1,
    F16 = 10,
}

impl Element {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Length = 2,
    Fixed32 = 5,
}

/// A message: its fields, one after another.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// No fields yet, with memory for this many bytes of them.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// The fields' bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: Wire) {
        self.varint(u64::from(field << 3 | wire as u32));
    }

    /// A whole number.
    pub fn int(&mut self, field: u32, value: u64) {
        self.key(field, Wire::Varint);
        self.varint(value);
    }

    pub fn float(&mut self, field: u32, value: f32) {
        self.key(field, Wire::Fixed32);
        self.0.extend(value.to_le_bytes());
    }

    /// The key and the length of what is appended next.
    pub fn open(&mut self, field: u32, len: usize) {
        self.key(field, Wire::Length);
        self.varint(len as u64);
    }

    pub fn text(&mut self, field: u32, text: &str) {
        self.open(field, text.len());
        self.0.extend(text.as_bytes());
    }

    pub fn message(&mut self, field: u32, message: &Message) {
        self.open(field, message.len());
        self.append(message);
    }

    /// More fields, or the value of one that is [open](Self::open).
    pub fn append(&mut self, fields: &Message) {
        self.0.extend(&fields.0);
    }

    /// A piece of the value of a field that is [open](Self::open).
    pub fn bytes(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.0.extend(bytes);
    }

    /// Puts fields before all others.
    pub fn precede(&mut self, fields: Message) {
        self.0.splice(0..0, fields.0);
    }
}

/// An attribute of a node (`AttributeProto`).
pub(super) enum Attribute<'a> {
    Float(&'static str, f32),
    Int(&'static str, usize),
    Ints(&'static str, &'a [usize]),
}

impl Attribute<'_> {
    fn message(&self) -> Message {
        let mut message = Message::default();
        // 1 is the name, 2, 3 and 8 are values, 20 is the type of the value.
        match *self {
            Self::Float(name, value) => {
                message.text(1, name);
                message.float(2, value);
                message.int(20, 1);
            }
            Self::Int(name, value) => {
                message.text(1, name);
                message.int(3, value as u64);
                message.int(20, 2);
            }
            Self::Ints(name, values) => {
                message.text(1, name);
                values
                    .iter()
                    .for_each(|&value| message.int(8, value as u64));
                message.int(20, 7);
            }
        }
        message
    }
}

/// An operator (`NodeProto`) with one output.
pub(super) struct Node<'a> {
    pub operator: &'static str,
    pub name: &'a str,
    pub inputs: &'a [&'a str],
    pub output: &'a str,
    pub attributes: &'a [Attribute<'a>],
}

impl Node<'_> {
    pub fn message(&self) -> Message {
        let mut message = Message::default();
        self.inputs.iter().for_each(|input| message.text(1, input));
        message.text(2, self.output);
        message.text(3, self.name);
        message.text(4, self.operator);
        for attribute in self.attributes {
            message.message(5, &attribute.message());
        }
        message
    }
}

/// All of a tensor (`TensorProto`) except its elements, which are little-endian and come last.
pub(super) fn tensor(name: &str, shape: &[usize], element: Element, bytes: usize) -> Message {
    let mut message = Message::default();
    shape.iter().for_each(|&side| message.int(1, side as u64));
    message.int(2, element as u64);
    message.text(8, name);
    message.open(9, bytes);
    message
}

/// A graph's input or output of f32 (`ValueInfoProto`): a batch of any size of this shape.
pub(super) fn batch_of(name: &str, shape: &[usize]) -> Message {
    let mut sides = Message::default();
    let mut symbol = Message::default();
    symbol.text(2, "batch");
    sides.message(1, &symbol);
    for &side in shape {
        let mut number = Message::default();
        number.int(1, side as u64);
        sides.message(1, &number);
    }
    let mut tensor = Message::default();
    tensor.int(1, Element::F32 as u64);
    tensor.message(2, &sides);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, &kind);
    message
}
