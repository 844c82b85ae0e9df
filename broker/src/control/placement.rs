//! Which shard serves a partition or a coordinator slot, which lane serves a shard.
//!
//! Pure functions of names and counts, so that a restart with the same number of shards finds everything where it was.

use millrace_storage::ids::{ShardIndex, TopicId, TopicPartition};

/// The shard for a partition: neighbours of one topic go round the shards, starting where the topic's id says, so that
/// topics of one partition spread too.
pub fn shard_of(partition: TopicPartition, shards: u16) -> ShardIndex {
    let TopicId(id) = partition.topic;
    let start = id.as_u128() % u128::from(shards);
    let shard = (start + u128::from(partition.index)) % u128::from(shards);
    ShardIndex(u16::try_from(shard).expect("less than the number of shards"))
}

/// The shard for a partition whose record names `recorded`: that one, if it still exists.
pub fn shard_again(partition: TopicPartition, recorded: Option<ShardIndex>, shards: u16) -> ShardIndex {
    recorded.filter(|shard| shard.0 < shards).unwrap_or_else(|| shard_of(partition, shards))
}

/// The shard for a coordinator slot.
pub fn slot_shard(slot: u16, shards: u16) -> ShardIndex {
    ShardIndex(slot % shards)
}

/// The lane that serves a shard.
pub fn lane_of(shard: ShardIndex, lanes: u16) -> u16 {
    shard.0 % lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_partitions_of_a_topic_spread_evenly() {
        for shards in 1..=16 {
            let mut load = vec![0; usize::from(shards)];
            for index in 0..48 {
                let partition = TopicPartition { topic: TopicId(Uuid::from_u128(u128::MAX - 5)), index };
                load[usize::from(shard_of(partition, shards).0)] += 1;
            }
            let (least, most) = (load.iter().min().unwrap(), load.iter().max().unwrap());
            assert!(most - least <= 1, "{load:?}");
        }
    }

    #[test]
    fn a_partition_stays_where_its_record_says_while_that_shard_exists() {
        let partition = TopicPartition { topic: TopicId(Uuid::from_u128(4)), index: 0 };
        assert_eq!(shard_again(partition, Some(ShardIndex(3)), 4), ShardIndex(3));
        assert_eq!(shard_again(partition, Some(ShardIndex(3)), 2), shard_of(partition, 2));
    }
}
