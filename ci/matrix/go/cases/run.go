// Package cases holds the cases of the Go clients, written once against an adapter of the client.
//
// A program runs the cases that it is asked for one after the other, each with a limit, and prints a line of JSON for each.
package cases

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"time"
)

const (
	caseLimit = 45 * time.Second
	// Patience is what one wait inside a case may take.
	Patience = 30 * time.Second
	// A refusal after longer than this is none at once.
	atOnce = 5 * time.Second
	// Beginning stands for the first offset of a partition.
	Beginning = -2
)

// ErrTooLarge is what an adapter makes of MESSAGE_TOO_LARGE.
var ErrTooLarge = errors.New("MESSAGE_TOO_LARGE")

// Header of a record.
type Header struct {
	Name  string
	Value []byte
}

// Record to write or read.
type Record struct {
	Key, Value []byte
	Headers    []Header
	// Partition to write to; nil leaves it to the client.
	Partition *int32
	// Timestamp is zero where the client is to set it.
	Timestamp time.Time
	Offset    int64
}

// How records are written; the zero value is the client's defaults.
type How struct {
	AcksAll bool
	Codec   string
	Largest int
}

// MemberSettings of a group; the zero value is the client's defaults.
type MemberSettings struct {
	Instance         string
	ConsumerProtocol bool
}

// Member of a group in a goroutine of its own, which commits what it read.
type Member interface {
	// Seen returns the values read and the partitions had, lost since the last call of Forget, and an error if it failed.
	Seen() (values []string, partitions, lost []int32, err error)
	Forget()
	Stop() error
}

// Client is an adapter.
type Client interface {
	// Lacks says why a case cannot be asked of the client.
	Lacks() map[string]string
	Write(topic string, records []Record, how How) error
	Read(topic string, starts map[int32]int64, count int) ([]Record, error)
	OffsetAt(topic string, at time.Time) (int64, error)
	Offsets(topic string) (earliest, latest int64, err error)
	Member(group, topic string, settings MemberSettings) Member
	ReadAndCommit(group, topic string, count int) ([]string, error)
	CreateTopic(topic string, partitions int32, config map[string]*string) error
	Topics() ([]string, error)
	Partitions(topic string) (int, error)
	CreatePartitions(topic string, count int) error
	Config(topic string) (map[string]string, error)
	SetConfig(topic, name, value string) error
	Groups() ([]string, error)
	DescribeGroup(group string) (state string, members int, err error)
	DeleteGroup(group string) error
	DeleteRecords(topic string, before int64) error
	DeleteTopic(topic string) error
	Cluster() (controller int32, nodes []int32, err error)
	// Transaction commits one record; the error is the client's.
	Transaction(topic, name string) error
}

type refused struct{ error }

type run struct {
	Client
	name  string
	names int
}

func (r *run) fresh(what string) string {
	r.names++
	return fmt.Sprintf("%s-%s-%d-%d", r.name, what, os.Getpid(), r.names)
}

// A failed expectation ends the case.
func check(err error, what string) {
	if err != nil {
		panic(fmt.Errorf("%s: %w", what, err))
	}
}

func expect(found, expected any, what string) {
	if !reflect.DeepEqual(found, expected) {
		panic(fmt.Errorf("%s: %.100s instead of %.100s", what, fmt.Sprint(found), fmt.Sprint(expected)))
	}
}

func until(condition func() bool, what string) {
	for limit := time.Now().Add(Patience); !condition(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			panic(fmt.Errorf("after %v: %s", Patience, what))
		}
	}
}

func sorted(values []string) []string {
	values = append([]string{}, values...)
	sort.Strings(values)
	return values
}

func verdict(r *run, name string) (result, detail string) {
	body, known := all[name]
	if why, lacks := r.Lacks()[name]; lacks {
		return "unsupported", why
	}
	if !known {
		return "fail", "the program does not know the case"
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			switch thrown := recover().(type) {
			case nil:
				done <- nil
			case error:
				done <- thrown
			default:
				done <- fmt.Errorf("%v", thrown)
			}
		}()
		body(r)
	}()
	select {
	case err := <-done:
		var no refused
		if errors.As(err, &no) {
			return "refused", no.Error()
		} else if err != nil {
			return "fail", err.Error()
		}
		return "pass", ""
	case <-time.After(caseLimit):
		return "fail", fmt.Sprintf("not over after %v", caseLimit)
	}
}

// Main is a whole program: `PROGRAM BOOTSTRAP CASE...`.
func Main(name, version string, connect func(bootstrap string) (Client, error)) {
	client, err := connect(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	r := &run{Client: client, name: name}
	for _, one := range os.Args[2:] {
		started := time.Now()
		result, detail := verdict(r, one)
		line, _ := json.Marshal(map[string]any{
			"client": name, "version": version, "case": one, "result": result, "detail": fmt.Sprintf("%.300s", detail),
			"seconds": time.Since(started).Seconds(),
		})
		fmt.Println(string(line))
	}
}
