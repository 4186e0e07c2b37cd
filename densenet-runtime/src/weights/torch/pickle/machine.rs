//! The stack machine that a pickle is a program for.

use std::collections::HashMap;

use super::{Graph, Id, MOST_NODES, Node, Object, PickleError};

/// The most bytes of the name of a class or function.
const LONGEST_NAME: usize = 1024;
/// Python 2 makes ordered dictionaries from a list of pairs; Python 3 fills an empty one.
const ORDERED_DICT: &str = "collections.OrderedDict";

/// The stack machine.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    opcode_at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// The heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Entries of dictionaries that were copied from lists.
    copied: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            opcode_at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    pub(super) fn run(mut self) -> Result<Graph, PickleError> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Graph {
                    nodes: self.nodes,
                    root,
                    len: self.at,
                });
            }
            self.step(opcode)?;
        }
    }

    #[allow(clippy::too_many_lines, reason = "one line for each instruction")]
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // What frames the rest.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            // Constants.
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'I' => self.decimal_or_bool()?,
            b'L' => self.decimal()?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Node::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()))?;
            }
            0x8a => {
                let len = self.byte()?;
                self.long(len.into())?;
            }
            0x8b => {
                let len = self.length4()?;
                self.long(len)?;
            }
            b'F' => {
                let line = self.line()?;
                let value = line.parse().map_err(|_| self.argument())?;
                self.push(Node::Float(value))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value))?;
            }
            // Text and bytes.
            b'S' => {
                let line = self.line()?;
                let text = unquoted(line).ok_or_else(|| self.argument())?;
                self.push(Node::Text(text))?;
            }
            b'V' => {
                let text = self.line()?.to_string();
                self.push(Node::Text(text))?;
            }
            b'U' => {
                let len = self.byte()?;
                self.ascii(len.into())?;
            }
            b'T' => {
                let len = self.length4()?;
                self.ascii(len)?;
            }
            0x8c => {
                let len = self.byte()?;
                self.unicode(len.into())?;
            }
            b'X' => {
                let len = self.length4()?;
                self.unicode(len)?;
            }
            0x8d => {
                let len = self.length8()?;
                self.unicode(len)?;
            }
            b'C' => {
                let len = self.byte()?;
                self.bytes_of(len.into())?;
            }
            b'B' => {
                let len = self.length4()?;
                self.bytes_of(len)?;
            }
            0x8e | 0x96 => {
                let len = self.length8()?;
                self.bytes_of(len)?;
            }
            // Containers.
            b'(' => {
                check_room(self.marks.len())?;
                self.marks.push(self.stack.len());
            }
            b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b't' | b'l' | 0x91 => {
                let elements = self.pop_mark()?;
                self.push(Node::Sequence(elements))?;
            }
            0x85..=0x87 => {
                let len = usize::from(opcode - 0x84);
                let from = self.height_of(len)?;
                let elements = self.stack.split_off(from);
                self.push(Node::Sequence(elements))?;
            }
            b'd' => {
                let entries = self.pop_mark()?;
                let entries = self.pairs(entries)?;
                self.push(Node::Dict(entries))?;
            }
            b'a' => {
                let element = self.pop()?;
                self.extend(vec![element])?;
            }
            b'e' | 0x90 => {
                let elements = self.pop_mark()?;
                self.extend(elements)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let entries = self.pop_mark()?;
                let entries = self.pairs(entries)?;
                self.set(entries)?;
            }
            // The stack and the memo.
            b'0' => match self.marks.last() {
                // A mark that is on top of the stack.
                Some(&height) if height == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            b'p' => {
                let key = self.line()?.parse().map_err(|_| self.argument())?;
                self.put(key)?;
            }
            b'q' => {
                let key = self.byte()?;
                self.put(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.put(key.into())?;
            }
            0x94 => self.put(self.memo.len() as u64)?,
            b'g' => {
                let key = self.line()?.parse().map_err(|_| self.argument())?;
                self.get(key)?;
            }
            b'h' => {
                let key = self.byte()?;
                self.get(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.get(key.into())?;
            }
            // Names, calls, and objects outside the pickle.
            b'c' => {
                let name = self.two_lines()?;
                self.push(Node::Global(name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let name = match (&self.nodes[module.0 as usize], &self.nodes[name.0 as usize]) {
                    // Both are shared, so that their copies may need more memory than the pickle.
                    (Node::Text(module), Node::Text(name))
                        if module.len() + name.len() < LONGEST_NAME =>
                    {
                        format!("{module}.{name}")
                    }
                    _ => return Err(self.argument()),
                };
                self.push(Node::Global(name))?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?;
            }
            0x92 => {
                self.pop()?;
                let arguments = self.pop()?;
                let callable = self.pop()?;
                self.call(callable, arguments)?;
            }
            b'i' => {
                let name = self.two_lines()?;
                let arguments = self.pop_mark()?;
                self.push(Node::Global(name))?;
                let callable = self.pop()?;
                self.push(Node::Sequence(arguments))?;
                let arguments = self.pop()?;
                self.call(callable, arguments)?;
            }
            b'o' => {
                let mut arguments = self.pop_mark()?;
                if arguments.is_empty() {
                    return Err(PickleError::Stack(self.opcode_at));
                }
                let callable = arguments.remove(0);
                self.push(Node::Sequence(arguments))?;
                let arguments = self.pop()?;
                self.call(callable, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                let top = self.top()?;
                if let Node::Object(object) = &mut self.nodes[top.0 as usize] {
                    object.state = Some(state);
                }
            }
            b'P' => {
                let name = self.line()?.to_string();
                self.push(Node::Text(name))?;
                let name = self.pop()?;
                self.push(Node::Persistent(name))?;
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Node::Persistent(name))?;
            }
            // Extensions and buffers beside the pickle, which no tensor needs.
            0x82 => {
                self.take(1)?;
                self.push(Node::None)?;
            }
            0x83 => {
                self.take(2)?;
                self.push(Node::None)?;
            }
            0x84 => {
                self.take(4)?;
                self.push(Node::None)?;
            }
            0x97 => self.push(Node::None)?,
            0x98 => {}
            opcode => {
                return Err(PickleError::Opcode {
                    at: self.opcode_at,
                    opcode,
                });
            }
        }
        Ok(())
    }

    fn argument(&self) -> PickleError {
        PickleError::Argument(self.opcode_at)
    }

    fn push(&mut self, node: Node) -> Result<(), PickleError> {
        check_room(self.nodes.len())?;
        self.push_id(Id(self.nodes.len() as u32))?;
        self.nodes.push(node);
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleError> {
        check_room(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    /// The height of the stack under its `len` topmost values, which no mark lies between.
    fn height_of(&self, len: usize) -> Result<usize, PickleError> {
        let lowest = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(len) {
            Some(height) if height >= lowest => Ok(height),
            _ => Err(PickleError::Stack(self.opcode_at)),
        }
    }

    fn top(&self) -> Result<Id, PickleError> {
        Ok(self.stack[self.height_of(1)?])
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let at = self.height_of(1)?;
        Ok(self.stack.remove(at))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Stack(self.opcode_at))?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(&self, values: Vec<Id>) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, rest) = values.as_chunks::<2>();
        if rest.is_empty() {
            Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
        } else {
            Err(PickleError::Stack(self.opcode_at))
        }
    }

    fn extend(&mut self, elements: Vec<Id>) -> Result<(), PickleError> {
        let top = self.top()?;
        match &mut self.nodes[top.0 as usize] {
            Node::Sequence(own) => own.extend(elements),
            Node::Object(object) => object.elements.extend(elements),
            _ => return Err(PickleError::Stack(self.opcode_at)),
        }
        Ok(())
    }

    fn set(&mut self, entries: Vec<(Id, Id)>) -> Result<(), PickleError> {
        let top = self.top()?;
        match &mut self.nodes[top.0 as usize] {
            Node::Dict(own) => own.extend(entries),
            Node::Object(object) => object.items.extend(entries),
            _ => return Err(PickleError::Stack(self.opcode_at)),
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<(), PickleError> {
        let items = self.items_of_list(callable, arguments).unwrap_or_default();
        self.copied += items.len();
        check_room(self.copied)?;
        self.push(Node::Object(Box::new(Object {
            callable,
            arguments,
            state: None,
            items,
            elements: Vec::new(),
        })))
    }

    /// The items of an ordered dictionary that is made from a list of pairs.
    fn items_of_list(&self, callable: Id, arguments: Id) -> Option<Vec<(Id, Id)>> {
        let node = |id: Id| self.nodes.get(id.0 as usize);
        let sequence = |id: Id| match node(id) {
            Some(Node::Sequence(elements)) => Some(elements.as_slice()),
            _ => None,
        };
        if !matches!(node(callable)?, Node::Global(name) if name == ORDERED_DICT) {
            return None;
        }
        let &[list] = sequence(arguments)? else {
            return None;
        };
        let pairs = sequence(list)?.iter().map(|&pair| match sequence(pair) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        });
        pairs.collect()
    }

    fn put(&mut self, key: u64) -> Result<(), PickleError> {
        let top = self.top()?;
        check_room(self.memo.len())?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), PickleError> {
        let found = self.memo.get(&key);
        let id = *found.ok_or(PickleError::Argument(self.opcode_at))?;
        self.push_id(id)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(PickleError::Truncated(self.opcode_at))?;
        self.at += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let at = self.opcode_at;
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| PickleError::Truncated(at))
    }

    fn length4(&mut self) -> Result<usize, PickleError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Result<usize, PickleError> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| PickleError::Truncated(self.opcode_at))
    }

    /// The text up to the end of a line.
    fn line(&mut self) -> Result<&'a str, PickleError> {
        let at = self.opcode_at;
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n');
        let len = len.ok_or(PickleError::Truncated(at))?;
        self.at += len + 1;
        let line = std::str::from_utf8(&rest[..len]).map_err(|_| PickleError::Argument(at))?;
        Ok(line.trim_end_matches('\r'))
    }

    fn two_lines(&mut self) -> Result<String, PickleError> {
        let mut name = self.line()?.to_string();
        name.push('.');
        name.push_str(self.line()?);
        Ok(name)
    }

    fn decimal_or_bool(&mut self) -> Result<(), PickleError> {
        match self.line()? {
            "00" => self.push(Node::Bool(false)),
            "01" => self.push(Node::Bool(true)),
            line => {
                let value = line.parse().map_err(|_| self.argument())?;
                self.push(Node::Int(value))
            }
        }
    }

    fn decimal(&mut self) -> Result<(), PickleError> {
        let line = self.line()?;
        let value = line.trim_end_matches('L').parse().ok();
        self.push(value.map_or(Node::None, Node::Int))
    }

    /// A whole number in two's complement, lowest byte first.
    fn long(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?;
        let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) {
            0xff
        } else {
            0
        };
        let mut whole = [sign; 16];
        let node = match whole.get_mut(..len) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Node::Int(i128::from_le_bytes(whole))
            }
            None => Node::None,
        };
        self.push(node)
    }

    /// A string of Python 2: text if it is UTF-8.
    fn ascii(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?.to_vec();
        let node = match String::from_utf8(bytes) {
            Ok(text) => Node::Text(text),
            Err(error) => Node::Bytes(error.into_bytes()),
        };
        self.push(node)
    }

    fn unicode(&mut self, len: usize) -> Result<(), PickleError> {
        // Python lets halves of surrogate pairs through.
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Node::Text(text))
    }

    fn bytes_of(&mut self, len: usize) -> Result<(), PickleError> {
        let bytes = self.take(len)?.to_vec();
        self.push(Node::Bytes(bytes))
    }
}

/// Refuses to go beyond [`MOST_NODES`].
fn check_room(len: usize) -> Result<(), PickleError> {
    if len < MOST_NODES {
        Ok(())
    } else {
        Err(PickleError::TooLarge)
    }
}

/// A string as Python writes it, without its quotes; escapes are kept.
fn unquoted(line: &str) -> Option<String> {
    let line = line.trim();
    ['\'', '"'].into_iter().find_map(|quote| {
        let inner = line.strip_prefix(quote)?.strip_suffix(quote)?;
        Some(inner.replace("\\\\", "\\").replace("\\'", "'"))
    })
}
