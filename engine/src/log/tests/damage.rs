//! Damaged files: what was acknowledged is there or missed, and a torn tail is no damage.

use std::path::PathBuf;

use super::*;
use crate::env::sim::{SimOptions, SimWorld};
use crate::env::{AlignedBuf, Disk, DiskFile, FileClass, SECTOR};
use crate::log::format::group::GroupHeader;
use crate::log::format::segment::SegmentHeader;

type Image = Vec<(PathBuf, Vec<u8>)>;

fn image_of(world: &SimWorld) -> Image {
    let files = world.store().files();
    let content = |path: &PathBuf| world.store().content(path).unwrap();
    files
        .into_iter()
        .map(|(path, _)| (path.clone(), content(&path)))
        .collect()
}

/// Opens a log of these files on another machine: the highest index of each partition.
fn open_image(image: &Image) -> Result<BTreeMap<PartitionId, u64>, EngineError> {
    let mut world = SimWorld::new(1, SimOptions::default());
    let image = image.clone();
    world
        .run(|env| async move {
            env.disk().create_dir_all(Path::new(DIR)).await?;
            for (path, bytes) in image {
                let file = env.disk().create(&path, FileClass::Log).await?;
                let mut buf = AlignedBuf::zeroed(bytes.len());
                buf.copy_from_slice(&bytes);
                file.write_at(0, buf).await.0?;
            }
            open(&env, small(), &Tables::default())
                .await
                .map(|opened| opened.last)
        })
        .unwrap()
}

/// Writes `records` of each of three partitions, in groups of three, and says how the files look
/// then. With `seal`, the log is closed before.
fn written(records: u64, seal: bool, options: &LogOptions) -> Image {
    let mut world = SimWorld::new(2, SimOptions::default());
    let options = options.clone();
    world
        .run(|env| async move {
            let log = open(&env, options, &Tables::default()).await.unwrap().log;
            let mut acked = BTreeMap::new();
            for index in 1..=records {
                for partition in [1, 2, 3] {
                    while append(&log, partition, index).is_err() {
                        log.submit();
                        progress(&log, &env).await;
                    }
                }
                settle(&log, &env, &mut acked, (3, index)).await.unwrap();
            }
            if seal {
                log.close().await.unwrap();
            }
        })
        .unwrap();
    image_of(&world)
}

/// The groups of an image in the order of their numbers: file, offset, header.
fn groups(image: &Image) -> Vec<(usize, usize, GroupHeader)> {
    let mut groups = Vec::new();
    for (file, (_, bytes)) in image.iter().enumerate() {
        for (at, sector) in bytes.chunks(SECTOR).enumerate() {
            if let Some(header) = GroupHeader::decode_anywhere(sector) {
                groups.push((file, at * SECTOR, header));
            }
        }
    }
    groups.sort_by_key(|(_, _, header)| header.sequence);
    groups
}

fn all(records: u64) -> BTreeMap<PartitionId, u64> {
    BTreeMap::from([(1, records), (2, records), (3, records)])
}

#[test]
fn a_flipped_bit_is_noticed_or_does_not_matter() {
    let image = written(60, true, &small());
    assert_eq!(open_image(&image).unwrap(), all(60));
    let groups = groups(&image);
    let last_records = groups
        .iter()
        .rev()
        .find(|(_, _, header)| header.records > 0);
    let (mut noticed, mut harmless) = (0, 0);
    let mut rng = Rng::new(3);
    for _ in 0..400 {
        let mut image = image.clone();
        let (file, offset, header) = groups[rng.index(groups.len())];
        let used = header.body_offset() + header.body_bytes as usize;
        let at = offset + rng.index(header.group_bytes());
        image[file].1[at] ^= 1 << rng.index(8);
        match open_image(&image) {
            Ok(last) => {
                // The padding, or the seal, which says nothing of its own.
                assert!(
                    at >= offset + used || header.records == 0,
                    "group {header:?} at {at}"
                );
                assert_eq!(last, all(60));
                harmless += 1;
            }
            Err(EngineError::Corrupt {
                file: path,
                offset: told,
                ..
            }) => {
                assert_eq!((path, told), (image[file].0.clone(), offset as u64));
                noticed += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(noticed > 50 && harmless > 50, "{noticed} {harmless}");
    assert!(last_records.is_some());
}

#[test]
fn a_lost_or_damaged_segment_header_is_noticed() {
    let image = written(60, true, &small());
    let segments: Vec<usize> = (0..image.len())
        .filter(|file| SegmentHeader::decode(&image[*file].1).is_ok())
        .collect();
    assert!(segments.len() > 3);
    for (place, file) in segments.iter().copied().enumerate() {
        let mut damaged = image.clone();
        damaged[file].1[40] ^= 1;
        let error = open_image(&damaged).unwrap_err();
        assert!(matches!(error, EngineError::Corrupt { .. }), "{error}");

        let mut lost = image.clone();
        lost[file].1[..SECTOR].fill(0);
        let error = open_image(&lost).unwrap_err();
        assert!(matches!(error, EngineError::Corrupt { .. }), "{error}");

        // Another file's content, headers and all.
        let mut misplaced = image.clone();
        let other = segments[(place + 1) % segments.len()];
        misplaced[file].1 = image[other].1.clone();
        let error = open_image(&misplaced).unwrap_err();
        assert!(matches!(error, EngineError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn another_version_is_named() {
    let mut image = written(3, true, &small());
    let bytes = &mut image[0].1;
    bytes[12] = 9;
    let crc = crate::log::format::crc32c(&bytes[12..96]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    let error = open_image(&image).unwrap_err();
    assert!(matches!(error, EngineError::WrongFormat { .. }), "{error}");
}

#[test]
fn tables_ahead_of_the_log_are_noticed() {
    let mut world = SimWorld::new(5, SimOptions::default());
    world
        .run(|env| async move {
            let log = open(&env, small(), &Tables::default()).await.unwrap().log;
            append(&log, 1, 1).unwrap();
            log.close().await.unwrap();
        })
        .unwrap();
    world.crash();
    let tables = Tables::default();
    tables.flush(1, 2);
    let result = world
        .run(|env| async move { open(&env, small(), &tables).await.map(|_| ()) })
        .unwrap();
    assert!(matches!(result, Err(EngineError::Corrupt { .. })));
}

/// Every way in which the sectors of the last writes may be there or not.
#[test]
fn any_torn_tail_is_cut_to_a_prefix() {
    let mut options = small();
    options.seal_after = Duration::from_secs(1000);
    options.segment_bytes = 256 << 10;
    // Entries 17 and 34 are large: the last three groups have one record each, of two sectors.
    let mut image = written(34, false, &options);
    let tail = groups(&image);
    let (file, offset, last) = tail[tail.len() - 1];
    let (file_before, offset_before, before) = tail[tail.len() - 2];
    assert_eq!((file, last.records, before.records), (file_before, 1, 1));
    assert!(
        last.durable_through < before.sequence,
        "they were in flight together"
    );
    let sectors: Vec<usize> = (offset_before..offset + last.group_bytes())
        .step_by(SECTOR)
        .collect();
    assert_eq!(sectors.len(), 4);
    let mut seen = [0; 3];
    for subset in 0..16_u32 {
        for stale in [0x00, 0x5a] {
            let mut torn = image.clone();
            for (i, at) in sectors.iter().enumerate() {
                if subset >> i & 1 == 0 {
                    torn[file].1[*at..*at + SECTOR].fill(stale);
                }
            }
            let kept = match (subset & 3, subset >> 2) {
                (3, 3) => 2,
                (3, _) => 1,
                _ => 0,
            };
            let there = [(1, 34), (2, 33 + kept.min(1)), (3, 33 + kept / 2)];
            assert_eq!(
                open_image(&torn).unwrap(),
                BTreeMap::from(there),
                "{subset:b}"
            );
            seen[kept as usize] += 1;
        }
    }
    assert_eq!(seen, [24, 6, 2]);
    // The same hole is damage if the last header says that the group before was durable.
    let covering = GroupHeader {
        durable_through: before.sequence,
        ..last
    };
    covering.encode(&mut image[file].1[offset..offset + last.group_bytes()]);
    image[file].1[offset_before..offset_before + SECTOR].fill(0);
    let error = open_image(&image).unwrap_err();
    assert!(error.to_string().contains("partitions [2]"), "{error}");
}
