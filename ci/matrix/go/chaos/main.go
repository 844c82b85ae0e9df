// A default producer of franz-go that writes numbered records at an even rate, number n to partition n modulo the
// partitions. Fails if one is not acknowledged. Arguments: bootstrap server, topic, partitions, records, records a second.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	var numbers [3]int
	for at := range numbers {
		number, err := strconv.Atoi(os.Args[3+at])
		if err != nil {
			panic(err)
		}
		numbers[at] = number
	}
	partitions, records, rate := numbers[0], numbers[1], numbers[2]
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Args[1]), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		panic(err)
	}
	var failed atomic.Int64
	started := time.Now()
	for number := range records {
		time.Sleep(time.Until(started.Add(time.Duration(number) * time.Second / time.Duration(rate))))
		record := &kgo.Record{
			Topic: os.Args[2], Partition: int32(number % partitions),
			Value: fmt.Appendf(nil, "franz-go %d %s", number, strings.Repeat("x", number%300)),
		}
		client.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
			if err != nil && failed.Add(1) == 1 {
				fmt.Println("franz-go: not acknowledged:", err)
			}
		})
	}
	if err := client.Flush(context.Background()); err != nil || failed.Load() > 0 {
		os.Exit(1)
	}
}
