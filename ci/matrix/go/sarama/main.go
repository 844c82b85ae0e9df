// The matrix's program of sarama.
package main

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"millrace/matrix/cases"
)

type adapter struct {
	bootstrap []string
	client    sarama.Client
	admin     sarama.ClusterAdmin
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	// The newest protocol that it speaks; without, it is that of an old broker.
	config.Version = sarama.MaxVersion
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Producer.Return.Successes = true
	// So that a member hears of a rebalance soon.
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.Rebalance.Retry.Backoff = 200 * time.Millisecond
	// A coordinator that refuses is asked 50 times by default.
	config.Producer.Transaction.Retry.Max = 3
	return config
}

func connect(bootstrap string) (cases.Client, error) {
	client, err := sarama.NewClient([]string{bootstrap}, config())
	if err != nil {
		return nil, err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	return &adapter{[]string{bootstrap}, client, admin}, err
}

func (a *adapter) Lacks() map[string]string {
	return map[string]string{
		"group-consumer-protocol": "sarama knows the classic protocol only",
	}
}

func (a *adapter) producer(config *sarama.Config) (sarama.SyncProducer, error) {
	return sarama.NewSyncProducer(a.bootstrap, config)
}

func (a *adapter) Write(topic string, records []cases.Record, how cases.How) error {
	config := config()
	if records[0].Partition != nil {
		config.Producer.Partitioner = sarama.NewManualPartitioner
	}
	if how.AcksAll {
		config.Producer.RequiredAcks = sarama.WaitForAll
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	if how.Largest > 0 {
		config.Producer.MaxMessageBytes = how.Largest
	}
	if how.Codec != "" {
		if err := config.Producer.Compression.UnmarshalText([]byte(how.Codec)); err != nil {
			return err
		}
	}
	producer, err := a.producer(config)
	if err != nil {
		return err
	}
	defer producer.Close()
	var sent []*sarama.ProducerMessage
	for _, record := range records {
		one := &sarama.ProducerMessage{Topic: topic, Timestamp: record.Timestamp}
		if record.Key != nil {
			one.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			one.Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			one.Headers = append(one.Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
		if record.Partition != nil {
			one.Partition = *record.Partition
		}
		sent = append(sent, one)
	}
	err = producer.SendMessages(sent)
	var failed sarama.ProducerErrors
	if errors.As(err, &failed) && errors.Is(failed[0].Err, sarama.ErrMessageSizeTooLarge) {
		return cases.ErrTooLarge
	}
	return err
}

func (a *adapter) Read(topic string, starts map[int32]int64, count int) ([]cases.Record, error) {
	consumer, err := sarama.NewConsumer(a.bootstrap, config())
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	messages := make(chan *sarama.ConsumerMessage)
	done := make(chan struct{})
	defer close(done)
	for partition, offset := range starts {
		if offset == cases.Beginning {
			offset = sarama.OffsetOldest
		}
		one, err := consumer.ConsumePartition(topic, partition, offset)
		if err != nil {
			return nil, err
		}
		defer one.Close()
		go func() {
			for message := range one.Messages() {
				select {
				case messages <- message:
				case <-done:
					return
				}
			}
		}()
	}
	var found []cases.Record
	for limit := time.After(cases.Patience); len(found) < count; {
		select {
		case one := <-messages:
			record := cases.Record{Key: one.Key, Value: one.Value, Offset: one.Offset}
			for _, header := range one.Headers {
				record.Headers = append(record.Headers, cases.Header{Name: string(header.Key), Value: header.Value})
			}
			found = append(found, record)
		case <-limit:
			return nil, errors.New("records are missing")
		}
	}
	return found, nil
}

func (a *adapter) OffsetAt(topic string, at time.Time) (int64, error) {
	return a.client.GetOffset(topic, 0, at.UnixMilli())
}

func (a *adapter) Offsets(topic string) (int64, int64, error) {
	earliest, err := a.client.GetOffset(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return 0, 0, err
	}
	latest, err := a.client.GetOffset(topic, 0, sarama.OffsetNewest)
	return earliest, latest, err
}

// member is the handler of its own sessions.
type member struct {
	mutex      sync.Mutex
	values     []string
	partitions []int32
	lost       []int32
	err        error
	enough     int
	full       func()
	stop       context.CancelFunc
	ended      chan struct{}
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.partitions = nil
	for _, some := range session.Claims() {
		m.partitions = append(m.partitions, some...)
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lost = append(m.lost, m.partitions...)
	m.partitions = nil
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.mutex.Lock()
			if m.enough > 0 && len(m.values) == m.enough {
				m.mutex.Unlock()
				continue
			}
			m.values = append(m.values, string(message.Value))
			full := m.enough > 0 && len(m.values) == m.enough
			m.mutex.Unlock()
			session.MarkMessage(message, "")
			session.Commit()
			if full {
				m.full()
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) live(ctx context.Context, a *adapter, group, topic string, config *sarama.Config) error {
	consumer, err := sarama.NewConsumerGroup(a.bootstrap, group, config)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := consumer.Consume(ctx, []string{topic}, m); err != nil && ctx.Err() == nil {
			consumer.Close()
			return err
		}
	}
	return consumer.Close()
}

func (a *adapter) start(group, topic string, config *sarama.Config, enough int) *member {
	ctx, stop := context.WithCancel(context.Background())
	m := &member{stop: stop, ended: make(chan struct{}), enough: enough, full: stop}
	go func() {
		defer close(m.ended)
		err := m.live(ctx, a, group, topic, config)
		m.mutex.Lock()
		m.err = err
		m.mutex.Unlock()
	}()
	return m
}

func (a *adapter) Member(group, topic string, settings cases.MemberSettings) cases.Member {
	config := config()
	config.Consumer.Group.InstanceId = settings.Instance
	return a.start(group, topic, config, 0)
}

func (m *member) Seen() ([]string, []int32, []int32, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return append([]string{}, m.values...), append([]int32{}, m.partitions...), append([]int32{}, m.lost...), m.err
}

func (m *member) Forget() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.lost = nil
}

func (m *member) Stop() error {
	m.stop()
	<-m.ended
	return m.err
}

func (a *adapter) ReadAndCommit(group, topic string, count int) ([]string, error) {
	m := a.start(group, topic, config(), count)
	<-m.ended
	return m.values, m.err
}

func (a *adapter) CreateTopic(topic string, partitions int32, config map[string]*string) error {
	return a.admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: config}, false)
}

func (a *adapter) Topics() ([]string, error) {
	found, err := a.admin.ListTopics()
	var names []string
	for name := range found {
		names = append(names, name)
	}
	return names, err
}

func (a *adapter) Partitions(topic string) (int, error) {
	found, err := a.admin.DescribeTopics([]string{topic})
	if err != nil {
		return 0, err
	}
	if found[0].Err != sarama.ErrNoError {
		return 0, found[0].Err
	}
	return len(found[0].Partitions), nil
}

func (a *adapter) CreatePartitions(topic string, count int) error {
	return a.admin.CreatePartitions(topic, int32(count), nil, false)
}

func (a *adapter) Config(topic string) (map[string]string, error) {
	entries, err := a.admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	found := map[string]string{}
	for _, entry := range entries {
		found[entry.Name] = entry.Value
	}
	return found, err
}

func (a *adapter) SetConfig(topic, name, value string) error {
	entries := map[string]sarama.IncrementalAlterConfigsEntry{name: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value}}
	return a.admin.IncrementalAlterConfig(sarama.TopicResource, topic, entries, false)
}

func (a *adapter) Groups() ([]string, error) {
	found, err := a.admin.ListConsumerGroups()
	var names []string
	for name := range found {
		names = append(names, name)
	}
	return names, err
}

func (a *adapter) DescribeGroup(group string) (string, int, error) {
	found, err := a.admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return "", 0, err
	}
	return found[0].State, len(found[0].Members), nil
}

func (a *adapter) DeleteGroup(group string) error { return a.admin.DeleteConsumerGroup(group) }

func (a *adapter) DeleteRecords(topic string, before int64) error {
	return a.admin.DeleteRecords(topic, map[int32]int64{0: before})
}

func (a *adapter) DeleteTopic(topic string) error { return a.admin.DeleteTopic(topic) }

func (a *adapter) Cluster() (int32, []int32, error) {
	brokers, controller, err := a.admin.DescribeCluster()
	var nodes []int32
	for _, broker := range brokers {
		nodes = append(nodes, broker.ID())
	}
	return controller, nodes, err
}

func (a *adapter) Transaction(topic, name string) error {
	config := config()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Transaction.ID = name
	producer, err := a.producer(config)
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := producer.BeginTxn(); err != nil {
		return err
	}
	if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder("v")}); err != nil {
		return err
	}
	return producer.CommitTxn()
}

func main() {
	version := "unknown"
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if strings.HasSuffix(module.Path, "/sarama") {
				version = module.Version
			}
		}
	}
	cases.Main("sarama", version, connect)
}
