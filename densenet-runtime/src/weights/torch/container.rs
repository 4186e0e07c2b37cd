//! The three containers of `torch.save`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};
use std::path::Path;

use zip::CompressionMethod;

use super::TorchError;
use super::pickle::{Graph, Id};
use super::tensor::{ElementType, Storage, View};
use super::write::NOTES;

/// The number that a stream starts with, as a pickle.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The most bytes of a zip's pickle; its tensors lie beside it.
const MOST_PICKLE: u64 = 1 << 26;
/// The most bytes of our notes.
const MOST_NOTES: u64 = 1 << 24;
/// A zip's contents are at most this many times as long as the zip, plus [`MOST_PICKLE`]. PyTorch
/// does not compress; compressing weights later saves a few per cent.
const MOST_PACKED: u64 = 16;
/// The longest name of a storage or of a tensor in a tar.
const LONGEST_KEY: usize = 256;
/// The most dimensions of a tensor in a tar.
const MOST_DIMENSIONS: u32 = 64;

const ENDS_EARLY: TorchError = TorchError::damaged("it ends in the middle of its tensors");

/// One of the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Zip,
    Stream,
    Tar,
}

/// The container whose first bytes these are.
fn kind(bytes: &[u8]) -> Option<Kind> {
    match bytes {
        [b'P', b'K', 3, 4, ..] => Some(Kind::Zip),
        [0x80, 2..=5, ..] => Some(Kind::Stream),
        _ if bytes.get(257..262) == Some(b"ustar") => Some(Kind::Tar),
        _ => None,
    }
}

/// Whether these bytes start like a file of `torch.save`: a zip, a tar, or a pickle.
pub(in crate::weights) fn is_torch(bytes: &[u8]) -> bool {
    kind(bytes).is_some()
}

/// What a file holds.
pub(super) struct Contents<'a> {
    pub graph: Graph,
    pub storages: Storages<'a>,
    /// The tensors of a tar, by the names that its pickle has for them.
    pub tensors: HashMap<String, View>,
    /// The notes that our writer adds to the tensors.
    pub notes: BTreeMap<String, String>,
}

/// A file's storages, by the keys that its pickle has for them.
#[derive(Default)]
pub(super) struct Storages<'a> {
    read: Vec<Storage>,
    places: HashMap<String, usize>,
    zip: Option<Zip<'a>>,
}

impl Storages<'_> {
    /// The place of a storage among those that were read; `None` if the file has none of this key.
    pub fn place(&mut self, key: &str) -> Result<Option<usize>, TorchError> {
        if let Some(&place) = self.places.get(key) {
            return Ok(Some(place));
        }
        let Some(zip) = &mut self.zip else {
            return Ok(None);
        };
        let Some(bytes) = zip.entry(&format!("data/{key}"), u64::MAX)? else {
            return Ok(None);
        };
        let is_big_endian = zip.is_big_endian;
        Ok(Some(self.add(key.to_string(), bytes, is_big_endian)))
    }

    fn add(&mut self, key: String, bytes: Vec<u8>, is_big_endian: bool) -> usize {
        let place = self.read.len();
        self.read.push(Storage {
            bytes,
            is_big_endian,
        });
        self.places.insert(key, place);
        place
    }

    /// Bytes of a storage that was read.
    pub fn bytes(&self, place: usize) -> usize {
        self.read.get(place).map_or(0, |own| own.bytes.len())
    }

    pub fn into_storages(self) -> Vec<Storage> {
        self.read
    }
}

/// Reads a file's container.
pub(super) fn read(bytes: &[u8]) -> Result<Contents<'_>, TorchError> {
    match kind(bytes) {
        Some(Kind::Zip) => read_zip(bytes),
        Some(Kind::Stream) => read_stream(bytes),
        Some(Kind::Tar) => read_tar(bytes),
        None => Err(TorchError::Other("it is not a zip, tar or pickle")),
    }
}

/// A name in a pickle: text, or a number in a tar's.
pub(super) fn key(graph: &Graph, id: Id) -> Option<String> {
    match graph.text(id) {
        Some(text) => (text.len() <= LONGEST_KEY).then(|| text.to_string()),
        None => graph.integer(id).map(|number| number.to_string()),
    }
}

/// A zip, whose storages are read on request.
struct Zip<'a> {
    archive: zip::ZipArchive<Cursor<&'a [u8]>>,
    /// What all names start with.
    folder: String,
    is_big_endian: bool,
    /// Bytes that may still be unpacked.
    left: u64,
}

impl Zip<'_> {
    /// The bytes of an entry, up to a limit, with the right checksum if it has one; `None` if there
    /// is no entry of this name.
    fn entry(&mut self, name: &str, most: u64) -> Result<Option<Vec<u8>>, TorchError> {
        let name = format!("{}{name}", self.folder);
        let Some(index) = self.archive.index_for_name(&name) else {
            return Ok(None);
        };
        let entry = self.archive.by_index_raw(index)?;
        // PyTorch writes zeros where it is told to leave checksums out.
        let has_checksum = entry.crc32() != 0 || entry.compression() != CompressionMethod::Stored;
        drop(entry);
        let entry = match has_checksum {
            true => self.archive.by_index(index)?,
            false => self.archive.by_index_raw(index)?,
        };
        let (size, most) = (entry.size(), most.min(self.left));
        if size > most {
            return Err(TorchError::too_large(
                "its zip unpacks to far more bytes than it has",
            ));
        }
        // The sizes that a zip claims are not trusted: memory grows as bytes arrive. The checksum
        // is compared at the end, which is found by trying to read another byte.
        let mut bytes = Vec::new();
        entry.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(TorchError::damaged(
                "a part of its zip is not as long as it says",
            ));
        }
        self.left -= size;
        Ok(Some(bytes))
    }
}

fn read_zip(bytes: &[u8]) -> Result<Contents<'_>, TorchError> {
    let archive = zip::ZipArchive::new(Cursor::new(bytes))?;
    let pickle = archive
        .file_names()
        .flatten()
        .filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .min_by_key(|name| name.len())
        .map(Cow::into_owned);
    let pickle = pickle.ok_or(TorchError::Other(
        "it is a zip, but not one of torch.save: it has no data.pkl",
    ))?;
    let folder = pickle.strip_suffix("data.pkl").unwrap_or_default();
    if archive
        .index_for_name(&format!("{folder}constants.pkl"))
        .is_some()
    {
        return Err(TorchError::Other(
            "it is a TorchScript program; load it in Python with torch.jit.load and save its state_dict()",
        ));
    }
    let mut zip = Zip {
        left: (bytes.len() as u64)
            .saturating_mul(MOST_PACKED)
            .saturating_add(MOST_PICKLE),
        folder: folder.to_string(),
        is_big_endian: false,
        archive,
    };
    let order = zip.entry("byteorder", 64)?;
    zip.is_big_endian = order.is_some_and(|order| order.starts_with(b"big"));
    let notes = zip.entry(NOTES, MOST_NOTES)?.map(|notes| {
        let read = serde_json::from_slice(&notes);
        read.map_err(|error| {
            TorchError::Damaged(format!("its notes cannot be read: {error}").into())
        })
    });
    let pickle = zip.entry("data.pkl", MOST_PICKLE)?.unwrap_or_default();
    Ok(Contents {
        graph: Graph::read(&pickle)?,
        notes: notes.transpose()?.unwrap_or_default(),
        storages: Storages {
            zip: Some(zip),
            ..Storages::default()
        },
        tensors: HashMap::new(),
    })
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn pickle(&mut self) -> Result<Graph, TorchError> {
        let graph = Graph::read(self.0)?;
        self.take(graph.len)?;
        Ok(graph)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], TorchError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(ENDS_EARLY)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TorchError> {
        self.take(N)?.try_into().map_err(|_| ENDS_EARLY)
    }

    /// A number that is not negative, of eight bytes.
    fn number(&mut self) -> Result<usize, TorchError> {
        usize::try_from(i64::from_le_bytes(self.array()?))
            .map_err(|_| TorchError::damaged("it has a negative size"))
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<usize>, TorchError> {
        (0..count).map(|_| self.number()).collect()
    }

    /// A storage: the number of its elements, then the elements.
    fn storage(&mut self, element: ElementType) -> Result<Vec<u8>, TorchError> {
        if element == ElementType::Unknown {
            return Err(TorchError::Other(
                "it has a storage of an unknown type; save its state_dict() with a newer PyTorch",
            ));
        }
        let len = self.number()?.checked_mul(element.bytes());
        Ok(self.take(len.ok_or(ENDS_EARLY)?)?.to_vec())
    }
}

/// A stream: a number, two pickles about the writer, the objects, the names of the storages, and the
/// storages in the order of the names.
fn read_stream(bytes: &[u8]) -> Result<Contents<'_>, TorchError> {
    const NAMELESS: TorchError = TorchError::damaged("a storage has no name or no type");
    let mut reader = Reader(bytes);
    let magic = reader.pickle()?;
    if magic.integer(magic.root()) != Some(MAGIC) {
        return Err(TorchError::Other(
            "it is a pickle, but not one of torch.save; save the model's state_dict() by torch.save",
        ));
    }
    let _version = reader.pickle()?;
    let _system = reader.pickle()?;
    let graph = reader.pickle()?;
    let keys = reader.pickle()?;
    // The types of the storages stand in the pickle, where tensors name them.
    let mut elements = HashMap::new();
    for name in graph.persistent() {
        if let Some(&[kind, class, own, ..]) = graph.sequence(name)
            && graph.text(kind) == Some("storage")
            && let Some(element) = graph.global(class).map(ElementType::of)
            && let Some(own) = key(&graph, own)
        {
            elements.insert(own, element);
        }
    }
    let mut storages = Storages::default();
    for &id in keys.sequence(keys.root()).unwrap_or_default() {
        let key = key(&keys, id).ok_or(NAMELESS)?;
        let bytes = reader.storage(*elements.get(&key).ok_or(NAMELESS)?)?;
        storages.add(key, bytes, false);
    }
    Ok(Contents {
        graph,
        storages,
        tensors: HashMap::new(),
        notes: BTreeMap::new(),
    })
}

/// A tar of three files that matter: the storages, the tensors, and the objects.
fn read_tar(bytes: &[u8]) -> Result<Contents<'_>, TorchError> {
    const NAMES: [&str; 3] = ["storages", "tensors", "pickle"];
    let mut parts = NAMES.map(|_| None);
    for entry in tar::Archive::new(bytes).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        let named = NAMES.iter().zip(&mut parts);
        let part = named.into_iter().find(|(name, _)| path == Path::new(name));
        if let Some((_, part)) = part {
            let mut contents = Vec::new();
            // A sparse file may say that it is longer than the tar.
            entry.take(bytes.len() as u64).read_to_end(&mut contents)?;
            *part = Some(contents);
        }
    }
    let [Some(storages), Some(tensors), Some(pickle)] = parts else {
        return Err(TorchError::Other(
            "it is a tar, but not one of torch.save: it lacks `storages`, `tensors` or `pickle`",
        ));
    };
    let (storages, starts) = tar_storages(&storages)?;
    Ok(Contents {
        graph: Graph::read(&pickle)?,
        tensors: tar_tensors(&tensors, &storages, &starts)?,
        storages,
        notes: BTreeMap::new(),
    })
}

/// The number of items that follow, as a pickle.
fn count(reader: &mut Reader<'_>) -> Result<usize, TorchError> {
    let count = reader.pickle()?;
    let count = count.integer(count.root());
    count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or(TorchError::damaged(
            "it does not say how many tensors it has",
        ))
}

/// The type of a storage of a tar, and the element of the one that it is a part of where it starts.
type Starts = HashMap<String, (ElementType, usize)>;

/// The storages of a tar.
fn tar_storages(bytes: &[u8]) -> Result<(Storages<'static>, Starts), TorchError> {
    const MALFORMED: TorchError = TorchError::damaged("a storage is malformed");
    let mut reader = Reader(bytes);
    let mut storages = Storages::default();
    let mut starts = HashMap::new();
    for _ in 0..count(&mut reader)? {
        let graph = reader.pickle()?;
        let Some(&[own, _, class]) = graph.sequence(graph.root()) else {
            return Err(MALFORMED);
        };
        let element = graph.global(class).map(ElementType::of).ok_or(MALFORMED)?;
        let own = key(&graph, own).ok_or(MALFORMED)?;
        let bytes = reader.storage(element)?;
        storages.add(own.clone(), bytes, false);
        starts.insert(own, (element, 0_usize));
    }
    // Storages that are parts of others: their name, the other's name, offset and length.
    let parts = reader.pickle()?;
    for &part in parts.sequence(parts.root()).unwrap_or_default() {
        let Some(&[own, whole, offset, _]) = parts.sequence(part) else {
            return Err(MALFORMED);
        };
        let own = key(&parts, own).ok_or(MALFORMED)?;
        let whole = key(&parts, whole).ok_or(MALFORMED)?;
        let offset = parts.integer(offset).and_then(|n| usize::try_from(n).ok());
        let place = *storages.places.get(&whole).ok_or(MALFORMED)?;
        let (element, start) = *starts.get(&whole).ok_or(MALFORMED)?;
        let start = start.checked_add(offset.ok_or(MALFORMED)?);
        storages.places.insert(own.clone(), place);
        starts.insert(own, (element, start.ok_or(MALFORMED)?));
    }
    Ok((storages, starts))
}

/// The tensors of a tar.
fn tar_tensors(
    bytes: &[u8],
    storages: &Storages<'_>,
    starts: &Starts,
) -> Result<HashMap<String, View>, TorchError> {
    const MALFORMED: TorchError = TorchError::damaged("a tensor is malformed");
    let mut reader = Reader(bytes);
    let mut tensors = HashMap::new();
    for _ in 0..count(&mut reader)? {
        let graph = reader.pickle()?;
        let Some(&[own, storage, _]) = graph.sequence(graph.root()) else {
            return Err(MALFORMED);
        };
        let own = key(&graph, own).ok_or(MALFORMED)?;
        let storage = key(&graph, storage).ok_or(MALFORMED)?;
        // The number of dimensions has eight bytes, but only four count.
        let dimensions = u32::from_le_bytes(reader.array()?);
        reader.take(4)?;
        let dimensions = dimensions.min(MOST_DIMENSIONS) as usize;
        let shape = reader.numbers(dimensions)?;
        let strides = reader.numbers(dimensions)?;
        let offset = reader.number()?;
        let place = *storages.places.get(&storage).ok_or(MALFORMED)?;
        let (element, start) = *starts.get(&storage).ok_or(MALFORMED)?;
        let view = View {
            element,
            storage: place,
            offset: start.checked_add(offset).ok_or(MALFORMED)?,
            shape,
            strides,
        };
        tensors.insert(own, view);
    }
    Ok(tensors)
}
