package cases

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

var all = map[string]func(*run){
	"produce-default":         func(r *run) { roundTrip(r, values(100, 1), How{}) },
	"produce-acks-all":        func(r *run) { roundTrip(r, values(100, 1), How{AcksAll: true}) },
	"codec-gzip":              codec("gzip"),
	"codec-snappy":            codec("snappy"),
	"codec-lz4":               codec("lz4"),
	"codec-zstd":              codec("zstd"),
	"headers":                 headers,
	"null-key-value":          nulls,
	"large-record":            large,
	"too-large-refused":       tooLarge,
	"auto-create-topic":       autoCreate,
	"read-beginning":          fromBeginning,
	"read-offset":             fromOffset,
	"read-timestamp":          fromTimestamp,
	"group-of-three":          func(r *run) { three(r, MemberSettings{}) },
	"group-consumer-protocol": func(r *run) { three(r, MemberSettings{ConsumerProtocol: true}) },
	"group-resume":            resume,
	"group-static":            static,
	"admin-create-topic":      createTopic,
	"admin-create-partitions": createPartitions,
	"admin-configs":           configs,
	"admin-groups":            groups,
	"admin-list-offsets":      listOffsets,
	"admin-delete-records":    deleteRecords,
	"admin-delete-group":      deleteGroup,
	"admin-delete-topic":      deleteTopic,
	"admin-cluster":           cluster,
	"transactions":            transactions,
}

func values(count, repeat int) []string {
	var made []string
	for number := range count {
		made = append(made, string(bytes.Repeat(fmt.Appendf(nil, "%06d", number), repeat)))
	}
	return made
}

func records(values []string) []Record {
	var made []Record
	for _, value := range values {
		made = append(made, Record{Value: []byte(value)})
	}
	return made
}

func texts(records []Record) []string {
	var found []string
	for _, record := range records {
		found = append(found, string(record.Value))
	}
	return found
}

func topic(r *run, what string, partitions int32, config map[string]*string) string {
	name := r.fresh(what)
	check(r.CreateTopic(name, partitions, config), "creating a topic")
	until(func() bool { found, _ := r.Partitions(name); return found == int(partitions) }, "the topic is not there")
	return name
}

func everything(r *run, name string, partitions, count int) []Record {
	starts := map[int32]int64{}
	for index := range int32(partitions) {
		starts[index] = Beginning
	}
	found, err := r.Read(name, starts, count)
	check(err, "reading")
	return found
}

func roundTrip(r *run, sent []string, how How) {
	name := topic(r, "produce", 3, nil)
	check(r.Write(name, records(sent), how), "writing")
	expect(sorted(texts(everything(r, name, 3, len(sent)))), sorted(sent), "what came back")
}

func codec(name string) func(*run) {
	return func(r *run) { roundTrip(r, values(50, 300), How{Codec: name}) }
}

// With acks=all: what is acknowledged is readable at once, whatever the client's default is.
func written(r *run, what string, count int) string {
	name := topic(r, what, 1, nil)
	check(r.Write(name, records(values(count, 1)), How{AcksAll: true}), "writing")
	return name
}

func headers(r *run) {
	name := topic(r, "headers", 1, nil)
	sent := []Header{{"a", []byte("1")}, {"a", []byte{}}, {"b", []byte("2")}}
	check(r.Write(name, []Record{{Value: []byte("v"), Headers: sent}}, How{}), "writing")
	expect(fmt.Sprint(everything(r, name, 1, 1)[0].Headers), fmt.Sprint(sent), "headers")
}

func nulls(r *run) {
	name := topic(r, "nulls", 1, nil)
	some := []byte("k")
	sent := []Record{{Value: some}, {Key: some}, {Key: some, Value: some}}
	check(r.Write(name, sent, How{}), "writing")
	for at, found := range everything(r, name, 1, 3) {
		expect([2]bool{found.Key == nil, found.Value == nil}, [2]bool{sent[at].Key == nil, sent[at].Value == nil}, "nulls")
	}
}

func large(r *run) {
	roundTrip(r, []string{string(make([]byte, 1_000_000))}, How{Largest: 2_000_000})
}

func tooLarge(r *run) {
	limit := "10000"
	name := topic(r, "large", 1, map[string]*string{"max.message.bytes": &limit})
	err := r.Write(name, []Record{{Value: make([]byte, 20_000)}}, How{})
	if !errors.Is(err, ErrTooLarge) {
		panic(fmt.Errorf("a record above max.message.bytes: %v", err))
	}
}

func autoCreate(r *run) {
	name := r.fresh("auto")
	check(r.Write(name, records([]string{"first"}), How{}), "writing")
	count, err := r.Partitions(name)
	check(err, "the topic")
	everything(r, name, count, 1)
}

func fromBeginning(r *run) {
	expect(texts(everything(r, written(r, "beginning", 50), 1, 50)), values(50, 1), "values")
}

func fromOffset(r *run) {
	found, err := r.Read(written(r, "offset", 50), map[int32]int64{0: 37}, 13)
	check(err, "reading")
	expect(found[0].Offset, int64(37), "first offset")
	expect(texts(found), values(50, 1)[37:], "values")
}

func fromTimestamp(r *run) {
	name, base := topic(r, "timestamp", 1, nil), time.Now().Add(-100*time.Second).Truncate(time.Millisecond)
	var sent []Record
	for number := range 50 {
		sent = append(sent, Record{Value: []byte("v"), Timestamp: base.Add(time.Duration(number) * time.Second)})
	}
	check(r.Write(name, sent, How{AcksAll: true}), "writing")
	start, err := r.OffsetAt(name, base.Add(20500*time.Millisecond))
	check(err, "asking for the offset")
	expect(start, int64(21), "offset at the time")
	found, err := r.Read(name, map[int32]int64{0: start}, 29)
	check(err, "reading")
	expect(found[0].Offset, int64(21), "first offset")
}

// Whether the members have disjoint partitions, so many each.
func share(members []Member, each, partitions int) bool {
	found, even := map[int32]bool{}, true
	for _, member := range members {
		_, has, _, err := member.Seen()
		check(err, "a member")
		even = even && len(has) == each
		for _, partition := range has {
			found[partition] = true
		}
	}
	return even && len(found) == partitions
}

func allRead(members []Member) []string {
	var found []string
	for _, member := range members {
		read, _, _, err := member.Seen()
		check(err, "a member")
		found = append(found, read...)
	}
	return sorted(found)
}

func numbered(prefix string) (made []string, written []Record) {
	for number := range 60 {
		partition := int32(number % 6)
		made = append(made, fmt.Sprintf("%s%d", prefix, number))
		written = append(written, Record{Value: []byte(made[number]), Partition: &partition})
	}
	return made, written
}

func three(r *run, settings MemberSettings) {
	name, group := topic(r, "three", 6, nil), r.fresh("three")
	var members []Member
	for range 3 {
		members = append(members, r.Member(group, name, settings))
	}
	until(func() bool { return share(members, 2, 6) }, "three members do not share the partitions")
	first, sent := numbered("a")
	check(r.Write(name, sent, How{}), "writing")
	until(func() bool { return len(allRead(members)) >= 60 }, "60 records were not read")
	check(members[0].Stop(), "leaving")
	until(func() bool { return share(members[1:], 3, 6) }, "the two that stayed did not take over")
	second, sent := numbered("b")
	check(r.Write(name, sent, How{}), "writing")
	until(func() bool { return len(allRead(members)) >= 120 }, "120 records were not read")
	expect(allRead(members), sorted(append(first, second...)), "what the group read")
	check(members[1].Stop(), "leaving")
	check(members[2].Stop(), "leaving")
}

func resume(r *run) {
	name, group := written(r, "resume", 20), r.fresh("resume")
	for _, expected := range [][]string{values(20, 1)[:10], values(20, 1)[10:]} {
		found, err := r.ReadAndCommit(group, name, 10)
		check(err, "reading")
		expect(found, expected, "values")
	}
}

func static(r *run) {
	name, group := topic(r, "static", 6, nil), r.fresh("static")
	stays := r.Member(group, name, MemberSettings{Instance: "one"})
	restarts := r.Member(group, name, MemberSettings{Instance: "two"})
	until(func() bool { return share([]Member{stays, restarts}, 3, 6) }, "two members do not share the partitions")
	_, had, _, _ := restarts.Seen()
	stays.Forget()
	check(restarts.Stop(), "stopping")
	again := r.Member(group, name, MemberSettings{Instance: "two"})
	until(func() bool { return share([]Member{stays, again}, 3, 6) }, "the member that came back has no share")
	_, has, _, _ := again.Seen()
	slices.Sort(had)
	slices.Sort(has)
	expect(has, had, "the partitions of the member that came back")
	_, _, lost, _ := stays.Seen()
	expect(len(lost), 0, "partitions that the other member lost meanwhile")
	check(again.Stop(), "stopping")
	check(stays.Stop(), "stopping")
}

func config(r *run, topic, name string) string {
	found, err := r.Config(topic)
	check(err, "describing settings")
	return found[name]
}

func createTopic(r *run) {
	hour := "3600000"
	expect(config(r, topic(r, "create", 5, map[string]*string{"retention.ms": &hour}), "retention.ms"), hour, "retention.ms")
}

func createPartitions(r *run) {
	name := topic(r, "partitions", 2, nil)
	check(r.CreatePartitions(name, 7), "adding partitions")
	until(func() bool { found, _ := r.Partitions(name); return found == 7 }, "not seven partitions")
}

func configs(r *run) {
	name := topic(r, "configs", 1, nil)
	expect(config(r, name, "cleanup.policy"), "delete", "cleanup.policy")
	check(r.SetConfig(name, "retention.ms", "7200000"), "altering")
	until(func() bool { return config(r, name, "retention.ms") == "7200000" }, "the change is not seen")
}

func listed(r *run, group string) bool {
	found, err := r.Groups()
	check(err, "listing groups")
	return slices.Contains(found, group)
}

func groups(r *run) {
	name, group := topic(r, "groups", 6, nil), r.fresh("groups")
	member := r.Member(group, name, MemberSettings{})
	until(func() bool { return share([]Member{member}, 6, 6) }, "the member has no partitions")
	expect(listed(r, group), true, "the group is listed")
	state, count, err := r.DescribeGroup(group)
	check(err, "describing")
	expect([2]any{state, count}, [2]any{"Stable", 1}, "state and members")
	check(member.Stop(), "leaving")
}

func listOffsets(r *run) {
	earliest, latest, err := r.Offsets(written(r, "offsets", 50))
	check(err, "listing")
	expect([2]int64{earliest, latest}, [2]int64{0, 50}, "earliest and latest")
}

func deleteRecords(r *run) {
	name := written(r, "records", 50)
	check(r.DeleteRecords(name, 30), "deleting records")
	expect(everything(r, name, 1, 20)[0].Offset, int64(30), "first offset")
}

func deleteGroup(r *run) {
	name, group := written(r, "delete-group", 10), r.fresh("delete-group")
	_, err := r.ReadAndCommit(group, name, 10)
	check(err, "reading")
	expect(listed(r, group), true, "the group is listed")
	check(r.DeleteGroup(group), "deleting")
	expect(listed(r, group), false, "the deleted group is listed")
}

func deleteTopic(r *run) {
	name := topic(r, "delete-topic", 1, nil)
	check(r.DeleteTopic(name), "deleting")
	until(func() bool {
		found, err := r.Topics()
		check(err, "listing")
		return !slices.Contains(found, name)
	}, "the topic is still there")
}

func cluster(r *run) {
	controller, nodes, err := r.Cluster()
	check(err, "describing")
	expect(slices.Contains(nodes, controller), true, "the controller is one of the nodes")
}

func transactions(r *run) {
	name, started := topic(r, "transactions", 1, nil), time.Now()
	if err := r.Transaction(name, r.fresh("tx")); err != nil {
		if time.Since(started) > atOnce {
			panic(fmt.Errorf("refused after %v: %w", time.Since(started), err))
		}
		panic(refused{err})
	}
	everything(r, name, 1, 1)
}
