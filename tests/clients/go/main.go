// The conversation of the clients' tests in amqp091-go.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const limit = 60 * time.Second

var step = "start"

func ok(name string) {
	fmt.Println("ok", name)
	step = "after " + name
}

func fail(format string, args ...interface{}) {
	fmt.Printf("FAILED "+step+": "+format+"\n", args...)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func expect(got, wanted interface{}, what string) {
	if !reflect.DeepEqual(got, wanted) {
		fail("%s: got %.300v, wanted %.300v", what, got, wanted)
	}
}

func connect(url string) *amqp.Connection {
	conn, err := amqp.Dial(url)
	must(err)
	return conn
}

func channel(conn *amqp.Connection) *amqp.Channel {
	ch, err := conn.Channel()
	must(err)
	return ch
}

// code and text of the channel error with which `call` must end
func closedWith(conn *amqp.Connection, code int, call func(*amqp.Channel) error) string {
	ch := channel(conn)
	notified := ch.NotifyClose(make(chan *amqp.Error, 1))
	var e *amqp.Error
	if err := call(ch); !errors.As(err, &e) {
		fail("no channel error %d but %v", code, err)
	}
	expect(e.Code, code, "reply code")
	expect((<-notified).Code, code, "notified reply code")
	return e.Reason
}

func count(conn *amqp.Connection, queue string) int {
	ch := channel(conn)
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	must(err)
	must(ch.Close())
	return q.Messages
}

func gone(conn *amqp.Connection, queue string) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		ch := channel(conn)
		_, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil)
		var e *amqp.Error
		if err == nil {
			must(ch.Close())
		} else if !errors.As(err, &e) {
			fail("%v", err)
		} else if e.Code == 404 {
			return
		} else {
			expect(e.Code, 405, "reply code") // the exclusive queue's owner is not quite gone yet
		}
		if time.Now().After(deadline) {
			fail("%s is still there", queue)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func get(ch *amqp.Channel, queue string, autoAck bool) amqp.Delivery {
	m, found, err := ch.Get(queue, autoAck)
	must(err)
	expect(found, true, "a message")
	return m
}

// the next message, waited for
func take(ch *amqp.Channel, queue string) amqp.Delivery {
	deadline := time.Now().Add(20 * time.Second)
	for {
		m, found, err := ch.Get(queue, false)
		must(err)
		if found {
			return m
		}
		if time.Now().After(deadline) {
			fail("no message in %s", queue)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func main() {
	time.AfterFunc(limit, func() { fail("not done within %v", limit) })
	ctx := context.Background()
	url := os.Getenv("AMQP_URL")
	uri, err := amqp.ParseURI(url)
	must(err)
	id := make([]byte, 16)
	_, err = rand.Read(id)
	must(err)
	name := fmt.Sprintf("clients.go.%x", id)

	conn := connect(url)
	ch := channel(conn)
	ok("connect")

	must(ch.ExchangeDeclare(name, "direct", true, false, false, false, nil))
	q, err := ch.QueueDeclare(name, true, false, false, false, nil)
	must(err)
	expect(q.Name, name, "queue name")
	must(ch.QueueBind(name, "key", name, false, nil))
	ok("declare")

	must(ch.Confirm(false))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, 200))
	returns := ch.NotifyReturn(make(chan amqp.Return, 10))
	publish := func(key string, mandatory bool, p amqp.Publishing) {
		must(ch.PublishWithContext(ctx, name, key, mandatory, false, p))
	}
	text := func(body string) amqp.Publishing {
		return amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}
	}
	confirmed := func() {
		if c := <-confirms; !c.Ack {
			fail("message %d was nacked", c.DeliveryTag)
		}
	}
	for i := 0; i < 100; i++ {
		publish("key", false, text(fmt.Sprint("m", i)))
	}
	for i := 1; i <= 100; i++ {
		c := <-confirms
		expect(c, amqp.Confirmation{DeliveryTag: uint64(i), Ack: true}, "confirm")
	}
	expect(count(conn, name), 100, "messages")
	ok("publish with confirms")

	publish("nowhere", true, text("lost"))
	confirmed()
	select {
	case r := <-returns:
		expect([]interface{}{r.ReplyCode, r.ReplyText, r.Exchange, r.RoutingKey, string(r.Body)},
			[]interface{}{uint16(312), "NO_ROUTE", name, "nowhere", "lost"}, "return")
	default:
		fail("no return before the confirm")
	}
	ok("mandatory return")

	must(ch.Qos(10, 0, false))
	deliveries, err := ch.Consume(name, "the-tag", false, false, false, false, nil)
	must(err)
	var held []amqp.Delivery
	for len(held) < 10 {
		held = append(held, <-deliveries)
	}
	expect(count(conn, name), 90, "messages ready beyond the prefetch window")
	for i := 0; i < 100; i++ {
		m := held[0]
		held = held[1:]
		expect([]interface{}{string(m.Body), m.Redelivered, m.Exchange, m.RoutingKey, m.ConsumerTag, m.DeliveryMode},
			[]interface{}{fmt.Sprint("m", i), false, name, "key", "the-tag", uint8(2)}, "delivery")
		must(m.Ack(false))
		if i < 90 {
			held = append(held, <-deliveries)
		}
	}
	must(ch.Cancel("the-tag", false))
	expect(count(conn, name), 0, "messages")
	ok("consume with prefetch and acks")

	publish("key", false, text("again"))
	confirmed()
	deliveries, err = ch.Consume(name, "", false, false, false, false, nil)
	must(err)
	m := <-deliveries
	expect([]interface{}{string(m.Body), m.Redelivered}, []interface{}{"again", false}, "first delivery")
	must(m.Nack(false, true))
	m = <-deliveries
	expect([]interface{}{string(m.Body), m.Redelivered}, []interface{}{"again", true}, "second delivery")
	must(m.Reject(false))
	must(ch.Cancel(m.ConsumerTag, false))
	expect(count(conn, name), 0, "messages")
	ok("nack and reject")

	_, found, err := ch.Get(name, false)
	must(err)
	expect(found, false, "get from the empty queue")
	publish("key", false, text("one"))
	publish("key", false, text("two"))
	confirmed()
	confirmed()
	m = get(ch, name, false)
	expect([]interface{}{string(m.Body), m.MessageCount, m.Redelivered}, []interface{}{"one", uint32(1), false}, "get")
	must(m.Ack(false))
	m = get(ch, name, true)
	expect([]interface{}{string(m.Body), m.MessageCount}, []interface{}{"two", uint32(0)}, "get")
	ok("basic.get")

	reason := closedWith(conn, 404, func(c *amqp.Channel) error {
		_, err := c.QueueDeclarePassive(name+".no", false, false, false, false, nil)
		return err
	})
	expect(reason, "NOT_FOUND - no queue '"+name+".no' in vhost '/'", "text")
	reason = closedWith(conn, 406, func(c *amqp.Channel) error {
		_, err := c.QueueDeclare(name, false, false, false, false, nil)
		return err
	})
	expect(strings.HasPrefix(reason, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue"), true, reason)
	expect(conn.IsClosed(), false, "connection closed")
	expect(count(conn, name), 0, "on a new channel")
	publish("key", false, text("on the old channel"))
	confirmed()
	get(ch, name, true)
	ok("channel error")

	when := time.Unix(1700000000, 0)
	values := func() amqp.Table {
		return amqp.Table{
			"string": "ünï", "empty": "", "bytes": []byte{0, 255}, "true": true, "false": false, "null": nil,
			"byte": byte(200), "int8": int8(-5), "int16": int16(-300), "int32": int32(1<<31 - 1), "int64": int64(-1 << 63),
			"float32": float32(1.5), "float64": 0.1, "decimal": amqp.Decimal{Scale: 3, Value: -12345}, "time": when,
			"longtext": strings.Repeat("x", 5000),
		}
	}
	headers := values()
	nested := values()
	nested["deeper"] = amqp.Table{"a": amqp.Table{}}
	headers["table"] = nested
	headers["array"] = []interface{}{int32(1), "two", nil, []interface{}{int64(3)}, amqp.Table{"x": []interface{}{true, 2.5}}}
	// amqp091-go has no cluster-id; the other 13 properties
	p := amqp.Publishing{
		Headers: headers, ContentType: "text/x", ContentEncoding: "utf-8", DeliveryMode: 2, Priority: 7,
		CorrelationId: "corr", ReplyTo: "reply", Expiration: "60000", MessageId: "mid", Timestamp: when,
		Type: "kind", UserId: uri.Username, AppId: "app", Body: []byte("props"),
	}
	publish("key", false, p)
	confirmed()
	m = get(ch, name, true)
	back := amqp.Publishing{
		Headers: m.Headers, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: m.DeliveryMode,
		Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, Expiration: m.Expiration,
		MessageId: m.MessageId, Timestamp: m.Timestamp, Type: m.Type, UserId: m.UserId, AppId: m.AppId, Body: m.Body,
	}
	for key, value := range headers {
		expect(back.Headers[key], value, "header "+key)
	}
	expect(back, p, "properties")
	ok("properties")

	big := make([]byte, 1<<20)
	_, err = rand.Read(big)
	must(err)
	publish("key", false, amqp.Publishing{Body: big, DeliveryMode: 2})
	publish("key", false, amqp.Publishing{DeliveryMode: 2})
	confirmed()
	confirmed()
	expect(bytes.Equal(get(ch, name, true).Body, big), true, "1 MiB body")
	ok("1 MiB body")
	expect(len(get(ch, name, true).Body), 0, "length")
	ok("empty body")

	tx := channel(conn)
	must(tx.Tx())
	must(tx.PublishWithContext(ctx, name, "key", false, false, text("committed")))
	expect(count(conn, name), 0, "messages before the commit")
	must(tx.TxCommit())
	expect(count(conn, name), 1, "messages after the commit")
	must(tx.PublishWithContext(ctx, name, "key", false, false, text("rolled back")))
	must(tx.TxRollback())
	must(tx.TxCommit())
	expect(count(conn, name), 1, "messages after the rollback")
	m = get(tx, name, false)
	expect(string(m.Body), "committed", "body")
	must(m.Ack(false))
	must(tx.TxCommit())
	must(tx.Close())
	expect(count(conn, name), 0, "messages after the committed ack")
	ok("transactions")

	other := connect(url)
	mine, err := channel(other).QueueDeclare("", false, false, true, false, nil)
	must(err)
	reason = closedWith(conn, 405, func(c *amqp.Channel) error {
		_, err := c.QueueDeclarePassive(mine.Name, false, false, true, false, nil)
		return err
	})
	expect(strings.HasPrefix(reason, "RESOURCE_LOCKED - "), true, reason)
	must(other.Close())
	gone(conn, mine.Name)
	auto := name + ".auto"
	_, err = ch.QueueDeclare(auto, false, true, false, true, amqp.Table{"x-expires": int32(600000)}) // nowait
	must(err)
	_, err = ch.Consume(auto, "auto-tag", true, false, false, true, nil) // nowait
	must(err)
	expect(count(conn, name), 0, "messages")
	must(ch.Cancel("auto-tag", false))
	gone(conn, auto)
	ok("exclusive and auto-delete queues")

	// requeue what a closed channel leaves unacked; recover
	publish("key", false, text("unacked"))
	confirmed()
	left := channel(conn)
	get(left, name, false)
	must(left.Close())
	m = get(ch, name, false)
	expect([]interface{}{string(m.Body), m.Redelivered}, []interface{}{"unacked", true}, "after the channel's end")
	must(ch.Recover(true))
	m = get(ch, name, true)
	expect([]interface{}{string(m.Body), m.Redelivered}, []interface{}{"unacked", true}, "after recover")
	ok("requeue on close and recover")

	// a quorum queue has had enough of a message
	limited, dead := name+".limited", name+".dead"
	_, err = ch.QueueDeclare(dead, true, false, false, false, nil)
	must(err)
	_, err = ch.QueueDeclare(limited, true, false, false, false, amqp.Table{
		"x-queue-type": "quorum", "x-delivery-limit": int32(2),
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead,
	})
	must(err)
	must(ch.PublishWithContext(ctx, "", limited, false, false, text("bad")))
	confirmed()
	for n := int64(0); n <= 2; n++ {
		m = take(ch, limited)
		expect(m.Headers["x-delivery-count"], n, "x-delivery-count")
		must(m.Nack(false, true))
	}
	m = take(ch, dead)
	must(m.Ack(false))
	deaths, _ := m.Headers["x-death"].([]interface{})
	expect(len(deaths), 1, "deaths")
	death, _ := deaths[0].(amqp.Table)
	expect([]interface{}{death["queue"], death["reason"], death["count"], death["exchange"], death["routing-keys"]},
		[]interface{}{limited, "delivery_limit", int64(1), "", []interface{}{limited}}, "x-death")
	for _, queue := range []string{limited, dead} {
		_, err = ch.QueueDelete(queue, false, false, false)
		must(err)
	}
	ok("delivery limit and dead letter")

	_, err = ch.QueuePurge(name, false)
	must(err)
	_, err = ch.QueueDelete(name, false, false, false)
	must(err)
	must(ch.ExchangeDelete(name, false, false))
	notified := conn.NotifyClose(make(chan *amqp.Error, 1))
	must(conn.Close())
	if e := <-notified; e != nil {
		fail("%v", e)
	}
	ok("close")
}
