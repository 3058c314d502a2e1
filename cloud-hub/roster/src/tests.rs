//! Lists and archives, good and hostile.

use std::io::{Cursor, Write as _};

use serde_json::{Value, json};
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;

const BOUNDS: Bounds = Bounds { entries: 20, list_bytes: 1 << 20, photograph_bytes: 1 << 16, unpacked_bytes: 4 << 20 };

type Opened = (List<Cursor<Vec<u8>>>, Option<Photographs<Cursor<Vec<u8>>>>);

fn opened(bytes: impl Into<Vec<u8>>, format: Format) -> Result<Opened, RosterError> {
    open(Cursor::new(bytes.into()), format, BOUNDS, || Ok(Cursor::default()))
}

fn rows(bytes: impl Into<Vec<u8>>, format: Format) -> Vec<Row> {
    let (mut list, _) = opened(bytes, format).unwrap();
    let rows = list.some(usize::MAX).unwrap();
    assert_eq!(rows.len() as u64, list.count());
    rows
}

fn refusal(bytes: impl Into<Vec<u8>>, format: Format) -> String {
    opened(bytes, format).err().expect("a refusal").to_string()
}

fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

const LIST: &[u8] = b"external_id,name,photos\nE-1,Ada,ada.jpg\n";

#[test]
fn a_table_becomes_rows_as_requests_have_them() {
    let table = "name,external_id,groups,email,valid_until,photos\r\n\
                 \"Lovelace, Ada\",E-1,visitors; night,ada@example.org,2027-01-31T00:00:00Z,a.jpg;b.jpg\r\n\
                 \r\n\
                 \"two\nlines\",E-2,,,,\r\n\
                 Cleo,E-3,,\r\n";
    let rows = rows(table, Format::Csv);
    let lines: Vec<u64> = rows.iter().map(|row| row.line).collect();
    assert_eq!(lines, [2, 4, 6]);
    let expected = json!({ "name": "Lovelace, Ada", "external_id": "E-1", "groups": ["visitors", "night"],
        "email": "ada@example.org", "valid_until": "2027-01-31T00:00:00Z" });
    assert_eq!(Value::Object(rows[0].fields.clone().unwrap()), expected);
    assert_eq!(rows[0].photographs, ["a.jpg", "b.jpg"]);
    let expected =
        json!({ "name": "two\nlines", "external_id": "E-2", "groups": [], "email": null, "valid_until": null });
    assert_eq!(Value::Object(rows[1].fields.clone().unwrap()), expected, "an empty cell takes away");
    assert_eq!(rows[2].fields, Err(RowError::Cells { found: 4, expected: 6 }));
}

#[test]
fn lines_become_rows() {
    let text = "\u{feff}{\"external_id\": \"E-1\", \"photos\": \"a.jpg\"}\n\n[1]\n{\"external_id\": \"E-2\"";
    let rows = rows(text, Format::Jsonl);
    assert_eq!(rows[0].photographs, ["a.jpg"]);
    assert_eq!(Value::Object(rows[0].fields.clone().unwrap()), json!({ "external_id": "E-1" }));
    assert_eq!((rows[1].line, &rows[1].fields), (3, &Err(RowError::NotAnObject)));
    assert!(matches!(rows[2].fields, Err(RowError::NotJson(_))));
    let wrong = rows_of(b"{\"external_id\":\"\xff\"}\n{\"photos\": [1]}\n{}\n");
    assert_eq!(wrong, [Some(RowError::NotUtf8), Some(RowError::Photographs), None]);
    let long = [b"{\"name\":\"".as_slice(), vec![b'x'; 100_000].as_slice(), b"\"}\n{}\n"].concat();
    assert_eq!(rows_of(&long), [Some(RowError::TooLong), None], "the line after a long one is read");
}

fn rows_of(bytes: &[u8]) -> Vec<Option<RowError>> {
    rows(bytes, Format::Jsonl).into_iter().map(|row| row.fields.err()).collect()
}

#[test]
fn a_wrong_heading_is_told_before_the_first_row() {
    for (table, told) in [
        ("", "is empty"),
        ("external_id,nmae\n", "\"nmae\""),
        ("external_id,name,external_id\n", "external_id twice"),
        ("name,email\n", "no column external_id"),
        ("external_id;name;email\n", "by commas"),
    ] {
        let refusal = refusal(table, Format::Csv);
        assert!(refusal.contains(told), "{table:?}: {refusal}");
    }
    assert!(refusal(b"\xff\xfee\0x\0".as_slice(), Format::Csv).contains("UTF-16"));
    assert_eq!(rows("\u{feff}external_id,name\nE-1,Ada\n", Format::Csv)[0].line, 2, "a mark is passed over, twice");
}

#[test]
fn a_wrong_row_is_its_own_matter() {
    let table = [b"external_id,name\nE-1,\xff\nE-2,Ada\nE-3,\"".as_slice(), &[b'x'; 70_000]].concat();
    let rows = rows(table, Format::Csv);
    assert_eq!(rows[0].fields, Err(RowError::NotUtf8));
    assert!(rows[1].fields.is_ok());
    assert_eq!((rows[2].line, &rows[2].fields), (4, &Err(RowError::TooLong)));
}

#[test]
fn a_row_without_an_end_refuses_the_list_before_it_fills_the_memory() {
    let commas = [b"external_id,name\na,b\n".as_slice(), vec![b','; 3 << 20].as_slice()].concat();
    let bounds = Bounds { list_bytes: 8 << 20, ..BOUNDS };
    let refused = open(Cursor::new(commas), Format::Csv, bounds, || Ok(Cursor::new(Vec::new()))).err().unwrap();
    assert!(matches!(refused, RosterError::Endless { line: 3 }), "{refused}");
    let heading = vec![b','; 3 << 20];
    let refused = open(Cursor::new(heading), Format::Csv, bounds, || Ok(Cursor::new(Vec::new()))).err().unwrap();
    assert!(matches!(refused, RosterError::Endless { line: 1 }), "{refused}");
}

#[test]
fn a_list_has_at_most_so_many_rows_however_short_they_are() {
    let most = usize::try_from(MAX_ROWS).unwrap();
    let list = |rows: usize| [b"external_id\n".as_slice(), &b"a\n".repeat(rows)].concat();
    assert_eq!(opened(list(most), Format::Csv).unwrap().0.count(), MAX_ROWS);
    assert!(refusal(list(most + 1), Format::Csv).contains("200000 rows"));
}

#[test]
fn a_trailer_that_claims_millions_of_files_is_refused_before_room_is_made_for_them() {
    let plain = packed(&[("people.csv", LIST)]);
    let end = plain.windows(4).rposition(|four| four == b"PK\x05\x06").unwrap();
    // A ZIP64's end of the directory and the place where it stands, before the ordinary one.
    let mut record = b"PK\x06\x06".to_vec();
    record.extend(44_u64.to_le_bytes());
    record.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [1_000_000_u64, 1_000_000, 1 << 26, 0] {
        record.extend(number.to_le_bytes());
    }
    let mut locator = b"PK\x06\x07\0\0\0\0".to_vec();
    locator.extend((end as u64).to_le_bytes());
    locator.extend(1_u32.to_le_bytes());
    let forged = [&plain[..end], &record, &locator, &plain[end..]].concat();
    let refused = opened(forged, Format::Zip).err().unwrap();
    assert!(matches!(refused, RosterError::Archive(Unfit::Zip64)), "{refused}");
    // Wherever it stands in the pieces that are read.
    for before in [(256 << 10) - 30, (256 << 10) - 10, 256 << 10] {
        let moved = [vec![0; before].as_slice(), &locator, &plain[end..]].concat();
        assert!(matches!(opened(moved, Format::Zip), Err(RosterError::Archive(Unfit::Zip64))), "{before}");
    }
}

#[test]
fn photographs_are_found_beside_the_list() {
    let folder = packed(&[("staff/people.csv", LIST), ("staff/ada.jpg", b"picture"), ("other.jpg", b"-")]);
    let (mut list, photographs) = opened(folder, Format::Zip).unwrap();
    let mut photographs = photographs.unwrap();
    assert_eq!(list.some(9).unwrap()[0].photographs, ["ada.jpg"]);
    assert_eq!(photographs.count(), 1);
    assert!(photographs.has("./ada.jpg") && !photographs.has("people.csv") && !photographs.has("../other.jpg"));
    assert_eq!(photographs.read("ada.jpg").unwrap(), b"picture");
    assert!(matches!(photographs.read("other.jpg"), Err(PhotographError::Missing { .. })));
}

#[test]
fn archives_that_are_not_fit_are_refused_whole() {
    for (name, told) in
        [("../ada.jpg", "../ada.jpg"), ("/etc/passwd", "/etc/passwd"), ("a\\..\\b.jpg", "names lead"), ("c:x", "c:x")]
    {
        let refusal = refusal(packed(&[("people.csv", LIST), (name, b"x")]), Format::Zip);
        assert!(refusal.contains(told), "{name}: {refusal}");
    }
    assert!(refusal(packed(&[("ada.jpg", b"x")]), Format::Zip).contains("neither people.csv"));
    assert!(
        refusal(packed(&[("people.csv", LIST), ("people.jsonl", b"")]), Format::Zip).contains("more than one list")
    );
    assert!(refusal(b"PK\x03\x04 not really".as_slice(), Format::Zip).contains("no ZIP"));
    let whole = packed(&[("people.csv", LIST), ("ada.jpg", b"x")]);
    assert!(refusal(&whole[..whole.len() - 30], Format::Zip).contains("no ZIP"), "cut");

    // Two files of one name, which no writer makes: one is renamed in the finished bytes.
    let twice = packed(&[("people.csv", LIST), ("ada.jpg", b"x"), ("bda.jpg", b"y")]);
    let twice = replaced(twice, b"bda.jpg", b"ada.jpg");
    assert!(refusal(twice, Format::Zip).contains("two files of one name"));

    // The flag of encryption, in both headers of the file.
    let mut locked = packed(&[("people.csv", LIST), ("ada.jpg", b"x")]);
    for (header, flags) in [(b"PK\x01\x02".as_slice(), 8), (b"PK\x03\x04".as_slice(), 6)] {
        let at = find(&locked, header, 1);
        locked[at + flags] |= 1;
    }
    assert!(refusal(locked, Format::Zip).contains("encrypted"));

    let many: Vec<(String, &[u8])> = (0..30).map(|n| (format!("{n}.jpg"), b"x".as_slice())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    assert!(refusal(packed(&many), Format::Zip).contains("more than 20 files"));
}

#[test]
fn bombs_are_bounded_whatever_they_declare() {
    let zeros = vec![0; 3 << 20];
    // The list itself.
    assert!(refusal(packed(&[("people.csv", &zeros)]), Format::Zip).contains("the list has more than 1048576 bytes"));
    // All of it, as declared.
    let declared = packed(&[("people.csv", LIST), ("a", &zeros), ("b", &zeros)]);
    assert!(refusal(declared, Format::Zip).contains("unpacks to has more than 4194304"));
    // One photograph, which declares to be small.
    let mut lying = packed(&[("people.csv", LIST), ("ada.jpg", &zeros)]);
    for (header, size) in [(b"PK\x01\x02".as_slice(), 24), (b"PK\x03\x04".as_slice(), 22)] {
        let at = find(&lying, header, 1) + size;
        lying[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
    }
    let mut photographs = opened(lying, Format::Zip).unwrap().1.unwrap();
    let refused = photographs.read("ada.jpg").unwrap_err();
    assert!(matches!(refused, PhotographError::TooLarge { .. } | PhotographError::Damaged { .. }), "{refused}");
    // Many that are allowed each, and too much together.
    let piece = vec![0; 1 << 16];
    let names: Vec<String> = (0..19).map(|n| format!("{n}.jpg")).collect();
    let files: Vec<(&str, &[u8])> =
        std::iter::once(("people.csv", LIST)).chain(names.iter().map(|name| (name.as_str(), &piece[..]))).collect();
    let bounds = Bounds { unpacked_bytes: 19 << 16, ..BOUNDS };
    let (_, photographs) = open(Cursor::new(packed(&files)), Format::Zip, bounds, || Ok(Cursor::default()))
        .map_or_else(|error| (error.to_string(), None), |(_, photographs)| (String::new(), photographs));
    assert!(photographs.is_none(), "the list comes on top");
    let bounds = Bounds { unpacked_bytes: 20 << 16, ..BOUNDS };
    let opened = open(Cursor::new(packed(&files)), Format::Zip, bounds, || Ok(Cursor::default()));
    let mut photographs = opened.unwrap().1.unwrap();
    let read = (0..25).map(|n| photographs.read(&format!("{}.jpg", n % 19)).map(|bytes| bytes.len()));
    let read: Vec<_> = read.collect();
    assert!(read[..19].iter().all(|one| matches!(one, Ok(65_536))));
    assert!(matches!(read[24], Err(PhotographError::AllTooLarge { .. })), "the same once more counts: {:?}", read[24]);
}

fn find(bytes: &[u8], what: &[u8], nth: usize) -> usize {
    let found = bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what);
    found.map(|(at, _)| at).nth(nth).unwrap()
}

fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}
