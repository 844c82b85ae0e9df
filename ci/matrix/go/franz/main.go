// The matrix's program of franz-go.
package main

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/matrix/cases"
)

type adapter struct {
	bootstrap string
	admin     *kadm.Client
}

func connect(bootstrap string) (cases.Client, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return nil, err
	}
	return &adapter{bootstrap, kadm.NewClient(client)}, nil
}

func (a *adapter) Lacks() map[string]string { return nil }

func limit() context.Context {
	ctx, release := context.WithTimeout(context.Background(), cases.Patience)
	time.AfterFunc(cases.Patience, release)
	return ctx
}

func (a *adapter) client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(options, kgo.SeedBrokers(a.bootstrap))...)
}

func (a *adapter) Write(topic string, records []cases.Record, how cases.How) error {
	// Auto-creation is the client's choice, and off by default.
	options := []kgo.Opt{kgo.AllowAutoTopicCreation()}
	if records[0].Partition != nil {
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	if how.AcksAll {
		options = append(options, kgo.RequiredAcks(kgo.AllISRAcks()))
	}
	if how.Largest > 0 {
		options = append(options, kgo.ProducerBatchMaxBytes(int32(how.Largest)))
	}
	switch how.Codec {
	case "gzip":
		options = append(options, kgo.ProducerBatchCompression(kgo.GzipCompression()))
	case "snappy":
		options = append(options, kgo.ProducerBatchCompression(kgo.SnappyCompression()))
	case "lz4":
		options = append(options, kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	case "zstd":
		options = append(options, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	default:
		// The tests of sizes need batches as large as their records.
		if len(records[0].Value) > 1000 {
			options = append(options, kgo.ProducerBatchCompression(kgo.NoCompression()))
		}
	}
	client, err := a.client(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	var sent []*kgo.Record
	for _, record := range records {
		one := &kgo.Record{Topic: topic, Key: record.Key, Value: record.Value, Timestamp: record.Timestamp}
		for _, header := range record.Headers {
			one.Headers = append(one.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		if record.Partition != nil {
			one.Partition = *record.Partition
		}
		sent = append(sent, one)
	}
	err = client.ProduceSync(limit(), sent...).FirstErr()
	if errors.Is(err, kerr.MessageTooLarge) {
		return cases.ErrTooLarge
	}
	return err
}

func (a *adapter) Read(topic string, starts map[int32]int64, count int) ([]cases.Record, error) {
	from := map[int32]kgo.Offset{}
	for partition, offset := range starts {
		if offset == cases.Beginning {
			from[partition] = kgo.NewOffset().AtStart()
		} else {
			from[partition] = kgo.NewOffset().At(offset)
		}
	}
	client, err := a.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []cases.Record
	for ctx := limit(); len(found) < count; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(one *kgo.Record) {
			record := cases.Record{Key: one.Key, Value: one.Value, Offset: one.Offset}
			for _, header := range one.Headers {
				record.Headers = append(record.Headers, cases.Header{Name: header.Key, Value: header.Value})
			}
			found = append(found, record)
		})
	}
	return found, nil
}

func offset(listed kadm.ListedOffsets, err error, topic string) (int64, error) {
	if err != nil {
		return 0, err
	}
	one, _ := listed.Lookup(topic, 0)
	return one.Offset, one.Err
}

func (a *adapter) OffsetAt(topic string, at time.Time) (int64, error) {
	listed, err := a.admin.ListOffsetsAfterMilli(limit(), at.UnixMilli(), topic)
	return offset(listed, err, topic)
}

func (a *adapter) Offsets(topic string) (int64, int64, error) {
	listed, err := a.admin.ListStartOffsets(limit(), topic)
	earliest, err := offset(listed, err, topic)
	if err != nil {
		return 0, 0, err
	}
	listed, err = a.admin.ListEndOffsets(limit(), topic)
	latest, err := offset(listed, err, topic)
	return earliest, latest, err
}

type member struct {
	mutex      sync.Mutex
	values     []string
	partitions map[int32]bool
	lost       []int32
	err        error
	stop       context.CancelFunc
	ended      chan struct{}
}

func (a *adapter) Member(group, topic string, settings cases.MemberSettings) cases.Member {
	ctx, stop := context.WithCancel(context.Background())
	m := &member{partitions: map[int32]bool{}, stop: stop, ended: make(chan struct{})}
	gone := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		m.mutex.Lock()
		defer m.mutex.Unlock()
		for _, partition := range lost[topic] {
			delete(m.partitions, partition)
			m.lost = append(m.lost, partition)
		}
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(gone), kgo.OnPartitionsLost(gone),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, gained map[string][]int32) {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			for _, partition := range gained[topic] {
				m.partitions[partition] = true
			}
		}),
	}
	if settings.Instance != "" {
		options = append(options, kgo.InstanceID(settings.Instance))
	}
	if settings.ConsumerProtocol {
		options = append(options, kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	}
	go func() {
		defer close(m.ended)
		if err := m.live(ctx, a, options); err != nil {
			m.mutex.Lock()
			m.err = err
			m.mutex.Unlock()
		}
	}()
	return m
}

func (m *member) live(ctx context.Context, a *adapter, options []kgo.Opt) error {
	client, err := a.client(options...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		poll, done := context.WithTimeout(ctx, 100*time.Millisecond)
		fetches := client.PollFetches(poll)
		done()
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) && !errors.Is(failed.Err, context.Canceled) {
				return failed.Err
			}
		}
		read := fetches.Records()
		m.mutex.Lock()
		for _, record := range read {
			m.values = append(m.values, string(record.Value))
		}
		m.mutex.Unlock()
		if len(read) > 0 {
			if err := client.CommitRecords(limit(), read...); err != nil {
				return err
			}
		}
		client.AllowRebalance()
	}
	return nil
}

func (m *member) Seen() ([]string, []int32, []int32, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var has []int32
	for partition := range m.partitions {
		has = append(has, partition)
	}
	return append([]string{}, m.values...), has, append([]int32{}, m.lost...), m.err
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
	client, err := a.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []string
	for ctx := limit(); len(found) < count; {
		fetches := client.PollRecords(ctx, count-len(found))
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		for _, record := range fetches.Records() {
			found = append(found, string(record.Value))
		}
		if err := client.CommitRecords(ctx, fetches.Records()...); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (a *adapter) CreateTopic(topic string, partitions int32, config map[string]*string) error {
	made, err := a.admin.CreateTopic(limit(), partitions, 1, config, topic)
	if err != nil {
		return err
	}
	return made.Err
}

func (a *adapter) Topics() ([]string, error) {
	found, err := a.admin.ListTopics(limit())
	return found.Names(), err
}

func (a *adapter) Partitions(topic string) (int, error) {
	found, err := a.admin.ListTopics(limit(), topic)
	if err != nil {
		return 0, err
	}
	return len(found[topic].Partitions), found[topic].Err
}

func (a *adapter) CreatePartitions(topic string, count int) error {
	changed, err := a.admin.UpdatePartitions(limit(), count, topic)
	if err != nil {
		return err
	}
	return changed.Error()
}

func (a *adapter) Config(topic string) (map[string]string, error) {
	described, err := a.admin.DescribeTopicConfigs(limit(), topic)
	if err != nil {
		return nil, err
	}
	one, err := described.On(topic, nil)
	found := map[string]string{}
	for _, config := range one.Configs {
		found[config.Key] = config.MaybeValue()
	}
	return found, err
}

func (a *adapter) SetConfig(topic, name, value string) error {
	changed, err := a.admin.AlterTopicConfigs(limit(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	if err != nil {
		return err
	}
	_, err = changed.On(topic, nil)
	return err
}

func (a *adapter) Groups() ([]string, error) {
	found, err := a.admin.ListGroups(limit())
	return found.Groups(), err
}

func (a *adapter) DescribeGroup(group string) (string, int, error) {
	found, err := a.admin.DescribeGroups(limit(), group)
	if err != nil {
		return "", 0, err
	}
	return found[group].State, len(found[group].Members), found[group].Err
}

func (a *adapter) DeleteGroup(group string) error {
	deleted, err := a.admin.DeleteGroup(limit(), group)
	if err != nil {
		return err
	}
	return deleted.Err
}

func (a *adapter) DeleteRecords(topic string, before int64) error {
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, before, -1)
	deleted, err := a.admin.DeleteRecords(limit(), offsets)
	if err != nil {
		return err
	}
	return deleted.Error()
}

func (a *adapter) DeleteTopic(topic string) error {
	deleted, err := a.admin.DeleteTopic(limit(), topic)
	if err != nil {
		return err
	}
	return deleted.Err
}

func (a *adapter) Cluster() (int32, []int32, error) {
	found, err := a.admin.BrokerMetadata(limit())
	return found.Controller, found.Brokers.NodeIDs(), err
}

func (a *adapter) Transaction(topic, name string) error {
	client, err := a.client(kgo.TransactionalID(name), kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	if err := client.ProduceSync(limit(), kgo.StringRecord("v")).FirstErr(); err != nil {
		return err
	}
	return client.EndTransaction(limit(), kgo.TryCommit)
}

func main() {
	version := "unknown"
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == "github.com/twmb/franz-go" {
				version = module.Version
			}
		}
	}
	cases.Main("franz-go", version, connect)
}
