use std::{
    io::{self, Read},
    iter,
    sync::Arc,
    time::Duration,
};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::task::JoinSet;
use worker::{
    kafka::{self, DrainLimits, GroupState, Offsets, PartitionOffsets, Started},
    metrics::Metrics,
};

use crate::topics::{PARTITIONS, Topics};

/// Sends `count` records that are no orders.
async fn send(topics: &Topics, partition: i32, count: usize) {
    topics.send(partition, &vec![b"x".to_vec(); count]).await;
}

fn of(partition: i32, end: i64, committed: Option<i64>) -> PartitionOffsets {
    PartitionOffsets {
        partition,
        log_start: 0,
        end,
        committed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_set_only_while_the_group_is_empty() {
    let topics = Topics::create("offsets").await;
    send(&topics, 2, 5).await;
    let offsets = Offsets::new(&topics.kafka).unwrap();
    assert_eq!(offsets.members().unwrap(), 0);
    offsets.commit([(2, 3)]).unwrap();
    let expected: Vec<PartitionOffsets> = (0..PARTITIONS)
        .map(|partition| match partition {
            2 => of(2, 5, Some(3)),
            other => of(other, 0, None),
        })
        .collect();
    assert_eq!(offsets.partitions().unwrap(), expected);
    let at = offsets.at_time(0..PARTITIONS, 0).unwrap();
    assert_eq!(at, [(2, 0)].into(), "only one partition has a record");
    let range = [(2, 1..4), (3, 0..0)].into();
    let mut read = Vec::new();
    offsets
        .read(&range, |record| read.push(record.offset))
        .unwrap();
    assert_eq!(read, [1, 2, 3]);

    // The broker rejects the commit if a member has joined since the check.
    let member: BaseConsumer = topics.client().create().unwrap();
    member.subscribe(&[&topics.kafka.topic]).unwrap();
    while member.assignment().unwrap().count() == 0 {
        member.poll(Duration::from_millis(50));
    }
    assert_eq!(offsets.members().unwrap(), 1);
    let error = offsets.commit([(2, 1)]).unwrap_err();
    assert!(error.to_string().contains("has members again"), "{error:#}");
    assert_eq!(offsets.partitions().unwrap(), expected);
    drop(member);
}

/// A member that ends leaves the group, so that the others take its partitions at once instead of
/// after its session timeout.
#[tokio::test(flavor = "multi_thread")]
async fn members_have_left_the_group_when_they_end_with_partitions_or_without() {
    let topics = Topics::create("leave").await;
    let offsets = Offsets::new(&topics.kafka).unwrap();
    let drain = DrainLimits {
        revoked: Duration::from_secs(1),
        shutdown: Duration::from_secs(1),
    };
    let join = |group: &Arc<GroupState>| {
        let (group, metrics) = (Arc::clone(group), Metrics::new());
        kafka::start(&topics.kafka, 1 << 20, drain, group, metrics).unwrap()
    };
    // One more member than there are partitions.
    let groups: Vec<Arc<GroupState>> = iter::repeat_with(Arc::default).take(7).collect();
    let members: Vec<Started> = groups.iter().map(join).collect();
    while !groups.iter().all(|group| group.is_member()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(offsets.members().unwrap(), 7);
    let ends: JoinSet<()> = members
        .into_iter()
        .map(|member| member.poller.stop())
        .collect();
    ends.join_all().await;
    assert_eq!(offsets.members().unwrap(), 0);
}

/// Every worker reads up to the end at its start, and librdkafka reports an end like an error.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_partition_is_not_logged_as_an_error() {
    let topics = Topics::create("end").await;
    send(&topics, 4, 2).await;
    let (mut log, writer) = io::pipe().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(Arc::new(writer))
        .finish();
    let mut read = Vec::new();
    tracing::subscriber::with_default(subscriber, || {
        let offsets = Offsets::new(&topics.kafka).unwrap();
        // The range ends beyond the last record, so that only the end of the partition ends the
        // read.
        let range = [(4, 0..3)].into();
        offsets
            .read(&range, |record| read.push(record.offset))
            .unwrap();
    });
    assert_eq!(read, [0, 1]);
    let mut complaints = String::new();
    log.read_to_string(&mut complaints).unwrap();
    assert_eq!(complaints, "");
}
