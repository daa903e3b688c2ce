//! Kafka as a producer, a consumer and an operator see it.

use std::{
    collections::BTreeMap,
    ptr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Offset, Timestamp, TopicPartitionList,
    admin::{
        AdminClient, AdminOptions, AlterConfig, ConfigResource, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    bindings::{rd_kafka_header_add, rd_kafka_headers_t, rd_kafka_resp_err_t},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers, Message, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use crate::{
    block_on,
    record::Record,
    wait::{DEADLINE, until_within},
};

/// The size that a record may have here; the topic decides what it really takes.
const MAX_BYTES: &str = "16777216";

/// How long a client waits for a broker: a test that stops it, starts it again and lets everybody reconnect on a busy machine
/// takes longer than what is to happen at once.
const OUTAGE: Duration = Duration::from_secs(180);

/// Name and value of a header that was read.
pub type Header = (String, Option<Vec<u8>>);

/// Name and value of a header to send. Brokers take any name, UTF-8 or not.
pub type RawHeader = (Vec<u8>, Option<Vec<u8>>);

/// Whose clock a topic's timestamps come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The broker's, as the worker creates it.
    LogAppend,
    /// The producers'.
    Create,
}

impl Timestamps {
    fn as_str(self) -> &'static str {
        match self {
            Self::LogAppend => "LogAppendTime",
            Self::Create => "CreateTime",
        }
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in ms since 1970.
    pub timestamp_ms: i64,
}

/// A record as it stands in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it stands.
    pub position: Position,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in their order.
    pub headers: Vec<Header>,
}

/// The brokers.
pub struct Broker {
    client: ClientConfig,
    producer: BaseProducer<Reports>,
}

impl Broker {
    /// The brokers at these addresses.
    pub fn new(brokers: &str) -> Self {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", brokers)
            .set("message.max.bytes", MAX_BYTES)
            .set("fetch.message.max.bytes", MAX_BYTES)
            // The default of 10 s would keep us away from a broker that is long back.
            .set("reconnect.backoff.max.ms", "1000")
            .set("acks", "all")
            .set("enable.idempotence", "true");
        let producer = client
            .create_with_context(Reports::default())
            .expect("a producer");
        Self { client, producer }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client.create().expect("an admin client")
    }

    /// Creates a topic of six partitions, of that size as the worker would.
    #[track_caller]
    pub fn create_topic(&self, name: &str, timestamps: Timestamps, max_bytes: u32) {
        let (max_bytes, ahead_ms) = (max_bytes.to_string(), i64::MAX.to_string());
        let topic = NewTopic::new(name, 6, TopicReplication::Fixed(1))
            .set("message.timestamp.type", timestamps.as_str())
            // Producers' clocks may be wrong by years; brokers refuse more than an hour unless they are told otherwise.
            .set("message.timestamp.after.max.ms", &ahead_ms)
            .set("max.message.bytes", &max_bytes);
        let created = block_on(self.admin().create_topics([&topic], &AdminOptions::new()));
        assert_eq!(created, Ok(vec![Ok(name.to_owned())]));
    }

    /// Deletes topics, where they exist.
    pub fn delete_topics(&self, names: &[&str]) {
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        if let Err(error) = block_on(self.admin().delete_topics(names, &options)) {
            eprintln!("deleting {names:?}: {error}");
        }
    }

    /// The settings of a topic.
    #[track_caller]
    pub fn settings(&self, topic: &str) -> BTreeMap<String, String> {
        let described: Vec<Result<ConfigResource, RDKafkaErrorCode>> = block_on(
            self.admin()
                .describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()),
        )
        .unwrap_or_else(|error| panic!("settings of {topic}: {error}"));
        described
            .into_iter()
            .flat_map(|resource| resource.expect("the topic exists").entries)
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect()
    }

    /// How large a record of a topic may be from now on; every other setting goes back to its default.
    #[track_caller]
    pub fn limit(&self, topic: &str, max_bytes: u32) {
        let max_bytes = max_bytes.to_string();
        let limit =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", &max_bytes);
        block_on(self.admin().alter_configs([&limit], &AdminOptions::new()))
            .unwrap_or_else(|error| panic!("limit of {topic}: {error}"))
            .into_iter()
            .for_each(|altered| drop(altered.expect("the topic exists")));
    }

    /// Deletes what lies below these offsets, as retention does.
    #[track_caller]
    pub fn delete_records(&self, topic: &str, below: &[(i32, i64)]) {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in below {
            offsets
                .add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .unwrap();
        }
        block_on(self.admin().delete_records(&offsets, &AdminOptions::new()))
            .unwrap_or_else(|error| panic!("deleting records of {topic}: {error}"))
            .elements()
            .iter()
            .for_each(|element| element.error().unwrap());
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut client = self.client.clone();
        client
            .set("group.id", group)
            // Whatever else is asked of a broker waits for the fetch under way; the default is half a second.
            .set("fetch.wait.max.ms", "20")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        client.create().expect("a consumer")
    }

    /// First offset, and offset behind the last, of each partition of a topic.
    #[track_caller]
    pub fn watermarks(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        watermarks(&self.consumer("e2e-reader"), topic)
    }

    /// As [`Broker::watermarks`], at the first attempt.
    ///
    /// # Errors
    /// When the topic does not exist, or a broker is not reachable at the address that it advertises.
    pub fn try_watermarks(&self, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
        try_watermarks(&self.consumer("e2e-reader"), topic)
    }

    /// How many records of `topic` the group has finished, as it committed them, and how many there are.
    #[track_caller]
    pub fn progress(&self, group: &str, topic: &str) -> (i64, i64) {
        self.group_progress(group, topic).read()
    }

    /// As [`Broker::progress`], to be read more than once.
    #[track_caller]
    pub fn group_progress(&self, group: &str, topic: &str) -> GroupProgress {
        let partitions = self.watermarks(topic).into_keys();
        GroupProgress {
            offsets: self.committed_offsets(group, topic, partitions),
            topic: topic.to_owned(),
        }
    }

    /// The next record that the group reads from each of these partitions, where it has committed one.
    #[track_caller]
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> BTreeMap<i32, i64> {
        self.committed_offsets(group, topic, partitions).read()
    }

    /// As [`Broker::committed`], to be read more than once.
    pub fn committed_offsets(
        &self,
        group: &str,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> CommittedOffsets {
        let mut partitions_of_topic = TopicPartitionList::new();
        for partition in partitions {
            partitions_of_topic.add_partition(topic, partition);
        }
        CommittedOffsets {
            consumer: self.consumer(group),
            partitions: partitions_of_topic,
        }
    }

    /// Everything that stands in a topic now, partition by partition.
    #[track_caller]
    pub fn read(&self, topic: &str) -> Vec<Stored> {
        self.read_since(topic, &BTreeMap::new())
    }

    /// As [`Broker::read`], without what stands in front of these offsets.
    #[track_caller]
    pub fn read_since(&self, topic: &str, since: &BTreeMap<i32, i64>) -> Vec<Stored> {
        let mut tail = self.tail(topic, since);
        let mut records = tail.read_to_end();
        records.sort_by_key(|record| (record.position.partition, record.position.offset));
        records
    }

    /// A topic without what stands in front of these offsets, to be read bit by bit.
    #[track_caller]
    pub fn tail(&self, topic: &str, since: &BTreeMap<i32, i64>) -> Tail {
        let consumer = self.consumer("e2e-reader");
        let mut assignment = TopicPartitionList::new();
        let mut next = BTreeMap::new();
        for (partition, (low, _)) in watermarks(&consumer, topic) {
            let first = since.get(&partition).map_or(low, |since| low.max(*since));
            assignment
                .add_partition_offset(topic, partition, Offset::Offset(first))
                .unwrap();
            next.insert(partition, first);
        }
        consumer.assign(&assignment).unwrap();
        Tail {
            consumer,
            topic: topic.to_owned(),
            next,
        }
    }

    /// Sends records and waits until each is acknowledged; where each stands, in their order.
    #[track_caller]
    pub fn send<'a>(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Vec<Position> {
        let mut sent = 0;
        for record in records {
            let mut message = record.message(topic, sent);
            while let Err((error, back)) = self.producer.send(message) {
                assert_eq!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::QueueFull),
                    "{error}"
                );
                self.producer.poll(Duration::from_millis(10));
                message = back;
            }
            sent += 1;
        }
        self.producer
            .flush(OUTAGE)
            .unwrap_or_else(|error| panic!("sending {sent} records to {topic}: {error}"));
        let reports = self.producer.context().take();
        assert_eq!(reports.len(), sent, "delivery reports");
        reports
            .into_values()
            .map(|report| report.unwrap_or_else(|error| panic!("sending to {topic}: {error}")))
            .collect()
    }
}

/// What a group has committed.
pub struct CommittedOffsets {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl CommittedOffsets {
    /// The next record that the group reads from each partition, where it has committed one.
    #[track_caller]
    pub fn read(&self) -> BTreeMap<i32, i64> {
        until_within(OUTAGE, "the committed offsets", || self.try_read())
    }

    fn try_read(&self) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let committed = self
            .consumer
            .committed_offsets(self.partitions.clone(), Duration::from_secs(5))?;
        let offsets = committed.elements().into_iter().filter_map(|element| {
            let Offset::Offset(offset) = element.offset() else {
                return None;
            };
            Some((element.partition(), offset))
        });
        Ok(offsets.collect())
    }
}

/// How far a group is.
pub struct GroupProgress {
    offsets: CommittedOffsets,
    topic: String,
}

impl GroupProgress {
    /// How many records the group has finished, as it committed them, and how many there are.
    #[track_caller]
    pub fn read(&self) -> (i64, i64) {
        until_within(OUTAGE, "the progress of the group", || self.try_read())
    }

    /// As [`GroupProgress::read`], at the first attempt.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn try_read(&self) -> Result<(i64, i64), KafkaError> {
        let watermarks = try_watermarks(&self.offsets.consumer, &self.topic)?;
        let committed = self.offsets.try_read()?.into_iter();
        let finished = committed.map(|(partition, offset)| offset - watermarks[&partition].0);
        let all = watermarks.values().map(|(low, high)| high - low);
        Ok((finished.sum(), all.sum()))
    }
}

/// A topic, read on each time from where it was left.
pub struct Tail {
    consumer: BaseConsumer,
    topic: String,
    /// The next offset of each partition to be read.
    next: BTreeMap<i32, i64>,
}

impl Tail {
    /// What was not read yet and stands in front of these offsets, and maybe some of what stands behind them.
    #[track_caller]
    pub fn read_to(&mut self, ends: &BTreeMap<i32, i64>) -> Vec<Stored> {
        let deadline = Instant::now() + DEADLINE;
        let mut records = Vec::new();
        while ends
            .iter()
            .any(|(partition, end)| self.next[partition] < *end)
        {
            let (topic, next) = (&self.topic, &self.next);
            assert!(
                Instant::now() < deadline,
                "{topic} cannot be read to {ends:?}, only to {next:?}"
            );
            if let Some(message) = self.consumer.poll(Duration::from_millis(100)) {
                let message = message.unwrap_or_else(|error| panic!("reading {topic}: {error}"));
                let record = stored(&message);
                self.next
                    .insert(record.position.partition, record.position.offset + 1);
                records.push(record);
            }
        }
        records
    }

    /// What was not read yet, to where the topic ends now.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<Stored> {
        let ends = watermarks(&self.consumer, &self.topic).into_iter();
        let ends = ends
            .map(|(partition, (_, high))| (partition, high))
            .collect();
        self.read_to(&ends)
    }
}

fn stored(message: &BorrowedMessage<'_>) -> Stored {
    let headers = message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter());
    Stored {
        position: position(message),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

impl Record {
    fn message<'a>(&'a self, topic: &'a str, number: usize) -> BaseRecord<'a, [u8], [u8], usize> {
        let mut message = BaseRecord::with_opaque_to(topic, number);
        message.key = self.key.as_deref();
        message.payload = self.value.as_deref();
        message.partition = self.partition;
        message.timestamp = self.timestamp_ms;
        if !self.headers.is_empty() {
            message.headers = Some(native_headers(&self.headers));
        }
        message
    }
}

/// The headers as librdkafka takes them.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka's own writer takes no name that is not UTF-8"
)]
fn native_headers(headers: &[RawHeader]) -> OwnedHeaders {
    let native = OwnedHeaders::new_with_capacity(headers.len());
    // What rust-rdkafka lends out is librdkafka's own list.
    let list = ptr::from_ref(native.as_borrowed())
        .cast_mut()
        .cast::<rd_kafka_headers_t>();
    for (name, value) in headers {
        let (bytes, size) = value.as_ref().map_or((ptr::null(), 0), |value| {
            (value.as_ptr().cast(), value.len() as isize)
        });
        // SAFETY: `native` owns the list, lives beyond the loop, and nobody else knows it yet; name and value are as long as
        // it is said, and copied.
        let added = unsafe {
            rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, bytes, size)
        };
        assert_eq!(added, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    native
}

fn position(message: &impl Message) -> Position {
    Position {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: match message.timestamp() {
            Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => millis,
            Timestamp::NotAvailable => -1,
        },
    }
}

/// As soon as each partition has a leader.
#[track_caller]
fn watermarks(consumer: &BaseConsumer, topic: &str) -> BTreeMap<i32, (i64, i64)> {
    until_within(OUTAGE, &format!("the offsets of {topic}"), || {
        try_watermarks(consumer, topic)
    })
}

fn try_watermarks(
    consumer: &BaseConsumer,
    topic: &str,
) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
    let timeout = Duration::from_secs(5);
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    let watermarks = partitions
        .map(|partition| {
            Ok((
                partition.id(),
                consumer.fetch_watermarks(topic, partition.id(), timeout)?,
            ))
        })
        .collect::<Result<BTreeMap<_, _>, KafkaError>>()?;
    if watermarks.is_empty() {
        return Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ));
    }
    Ok(watermarks)
}

/// Delivery reports, by the number of the record.
#[derive(Default)]
struct Reports(Mutex<BTreeMap<usize, Result<Position, KafkaError>>>);

impl Reports {
    fn take(&self) -> BTreeMap<usize, Result<Position, KafkaError>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let report = match result {
            Ok(message) => Ok(position(message)),
            Err((error, _)) => Err(error.clone()),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, report);
    }
}
