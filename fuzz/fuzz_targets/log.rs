//! Any bytes where the log's records, groups and segment headers are read from: as they come, and
//! with magic numbers and checksums put right, so that what is behind them is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringbolt_engine::log::format::group::{GROUP_HEADER_BYTES, GROUP_MAGIC};
use ringbolt_engine::log::format::segment::{SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, SEGMENT_VERSION};
use ringbolt_engine::log::format::{GroupHeader, Place, RecordView, SegmentHeader, crc32c, record};

const PLACE: Place = Place {
    epoch: 1,
    offset: 4096,
};

fuzz_target!(|bytes: &[u8]| {
    read_record(bytes);
    read_group(bytes);
    read_segment(bytes);
    if let Some(sealed) = sealed_record(bytes) {
        read_record(&sealed);
    }
    if let Some(sealed) = sealed_group(bytes) {
        read_group(&sealed);
    }
    if let Some(sealed) = sealed_segment(bytes) {
        read_segment(&sealed);
    }
});

fn read_record(bytes: &[u8]) {
    if let Some((view, length)) = record::decode(bytes, PLACE) {
        assert!(length <= bytes.len());
        if let RecordView::Entry { effects, .. } = view {
            let _ = effects.count();
        }
    }
}

fn read_group(bytes: &[u8]) {
    if let Some(header) = GroupHeader::decode_anywhere(bytes) {
        let _ = header.listed(bytes).count();
        if header.records_intact(bytes) {
            assert_eq!(header.records(bytes).count(), header.records as usize);
        }
    }
}

fn read_segment(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        let _ = header.checkpoints(bytes);
    }
}

fn sealed_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = bytes.to_vec();
    let length = sealed.len() as u32;
    let head = sealed.get_mut(..16)?;
    head[4..8].copy_from_slice(&length.to_le_bytes());
    head[8..12].copy_from_slice(&(PLACE.epoch as u32).to_le_bytes());
    head[12..].copy_from_slice(&PLACE.offset.to_le_bytes());
    let crc = crc32c(&sealed[4..]);
    sealed[..4].copy_from_slice(&crc.to_le_bytes());
    Some(sealed)
}

fn sealed_group(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = bytes.to_vec();
    let head = sealed.get_mut(..GROUP_HEADER_BYTES)?;
    head[..4].copy_from_slice(&GROUP_MAGIC.to_le_bytes());
    let partitions = usize::from(u16::from_le_bytes([head[44], head[45]]));
    let crc = crc32c(sealed.get(8..GROUP_HEADER_BYTES + 2 * partitions)?);
    sealed[4..8].copy_from_slice(&crc.to_le_bytes());
    Some(sealed)
}

fn sealed_segment(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = bytes.to_vec();
    let head = sealed.get_mut(..SEGMENT_HEADER_BYTES)?;
    head[..8].copy_from_slice(&SEGMENT_MAGIC);
    head[12..14].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
    let crc = crc32c(&head[12..]);
    head[8..12].copy_from_slice(&crc.to_le_bytes());
    Some(sealed)
}
