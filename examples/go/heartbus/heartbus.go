// Package heartbus calls libheartbus through cgo: servers and clients whose events arrive in channels.
package heartbus

/*
#cgo pkg-config: heartbus
#include <heartbus.h>
#include <stdlib.h>
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"runtime"
	"unsafe"
)

// What a server tells: a sum of these.
const (
	OnConnect   = C.HEARTBUS_ON_CONNECT
	OnRegister  = C.HEARTBUS_ON_REGISTER
	OnHeartbeat = C.HEARTBUS_ON_HEARTBEAT
	OnData      = C.HEARTBUS_ON_DATA
	OnLeft      = C.HEARTBUS_ON_LEFT
	OnClose     = C.HEARTBUS_ON_CLOSE
)

// Event is a copy of a heartbus_event. Name is that of heartbus_event_name.
type Event struct {
	Name         string
	Node         string
	Payload      []byte
	Text         string
	IP           string
	Port         uint16
	Code         int
	ConnectionID uint64
	ClientID     uint64
	ChannelID    int64
	Count        int
}

// Error is a status that is not OK, with its text.
type Error struct {
	Status string
	Text   string
}

func (e *Error) Error() string { return e.Text }

// Config has the keys of the first page of heartbus.h.
type Config map[string]any

// call runs a function of the library. Its error text belongs to the thread, which a goroutine may change between two calls.
func call(function func() C.heartbus_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := function(); status != C.HEARTBUS_OK {
		return &Error{C.GoString(C.heartbus_status_name(C.int32_t(status))), C.GoString(C.heartbus_last_error())}
	}
	return nil
}

// bytesOf lends Go's memory for the length of a call: the library keeps nothing of it.
func bytesOf(data []byte) (*C.char, C.size_t) {
	if len(data) == 0 {
		return nil, 0
	}
	return (*C.char)(unsafe.Pointer(&data[0])), C.size_t(len(data))
}

func (c Config) bytes() ([]byte, error) {
	if c == nil {
		return nil, nil
	}
	return json.Marshal(c)
}

const batch = 64

// listen polls on a thread of its own until the handle is stopped or freed, and closes the channel then. It stays on its thread: when
// another one frees the handle, what a poll returned is kept for the thread that polled.
func listen(poll func(events *C.heartbus_event, count *C.size_t) C.heartbus_status, into chan<- Event) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(into)
	events := (*[batch]C.heartbus_event)(C.calloc(batch, C.sizeof_heartbus_event))
	count := (*C.size_t)(C.calloc(1, C.sizeof_size_t))
	defer C.free(unsafe.Pointer(events))
	defer C.free(unsafe.Pointer(count))
	for poll(&events[0], count) == C.HEARTBUS_OK {
		for i := 0; i < int(*count); i++ {
			into <- copyOf(&events[i])
		}
	}
}

func copyOf(event *C.heartbus_event) Event {
	return Event{
		Name:         C.GoString(C.heartbus_event_name(C.int32_t(event._type))),
		Node:         C.GoStringN(event.node_id, C.int(event.node_id_len)),
		Payload:      C.GoBytes(unsafe.Pointer(event.payload), C.int(event.payload_len)),
		Text:         C.GoStringN(event.text, C.int(event.text_len)),
		IP:           C.GoStringN(event.ip, C.int(event.ip_len)),
		Port:         uint16(event.port),
		Code:         int(event.code),
		ConnectionID: uint64(event.connection_id),
		ClientID:     uint64(event.client_id),
		ChannelID:    int64(event.channel_id),
		Count:        int(event.count),
	}
}

// Log tells messages of the library. Several of them do not take messages away from each other.
type Log struct {
	Events <-chan Event
	handle *C.heartbus_log
}

// StartLog opens a log of all servers and clients, for messages of a level (C's heartbus_log_level: 1 debug to 4 error) and above.
func StartLog(level int) (*Log, error) {
	var handle *C.heartbus_log
	if err := call(func() C.heartbus_status { return C.heartbus_log_start(C.int32_t(level), &handle) }); err != nil {
		return nil, err
	}
	told := make(chan Event, batch)
	go listen(func(events *C.heartbus_event, count *C.size_t) C.heartbus_status {
		return C.heartbus_log_poll(handle, events, batch, -1, count)
	}, told)
	return &Log{told, handle}, nil
}

// Close ends the log. What is left of its Events is thrown away.
func (l *Log) Close() error {
	err := call(func() C.heartbus_status { return C.heartbus_log_free(l.handle) })
	for range l.Events {
	}
	return err
}

// Server is a running server. Its Events must be received, or its nodes will have to wait.
type Server struct {
	Events <-chan Event
	handle *C.heartbus_server
}

// StartServer starts a server that tells what is asked for.
func StartServer(config Config, events uint32) (*Server, error) {
	text, err := config.bytes()
	if err != nil {
		return nil, err
	}
	var handle *C.heartbus_server
	start, length := bytesOf(text)
	if err := call(func() C.heartbus_status {
		return C.heartbus_server_start(start, length, C.uint32_t(events), &handle)
	}); err != nil {
		return nil, err
	}
	told := make(chan Event, batch)
	go listen(func(events *C.heartbus_event, count *C.size_t) C.heartbus_status {
		return C.heartbus_server_poll(handle, events, batch, -1, count)
	}, told)
	return &Server{told, handle}, nil
}

// Port is the real one, where the configuration said 0.
func (s *Server) Port() (uint16, error) {
	var port C.uint16_t
	err := call(func() C.heartbus_status { return C.heartbus_server_port(s.handle, &port) })
	return uint16(port), err
}

// Send sends data to a node.
func (s *Server) Send(node string, data []byte) error {
	id, idLen := bytesOf([]byte(node))
	payload, length := bytesOf(data)
	return call(func() C.heartbus_status { return C.heartbus_server_send(s.handle, id, idLen, payload, length, 0) })
}

// Stop ends the server; Events is closed after the last one. Close frees it when that has come.
func (s *Server) Stop() error {
	return call(func() C.heartbus_status { return C.heartbus_server_stop(s.handle) })
}

// Close frees the server. What is left of its Events is thrown away.
func (s *Server) Close() error {
	if err := s.Stop(); err != nil {
		return err
	}
	for range s.Events {
	}
	return call(func() C.heartbus_status { return C.heartbus_server_free(s.handle) })
}

// Clients is a group of clients with one thread and one channel of events.
type Clients struct {
	Events <-chan Event
	handle *C.heartbus_clients
}

// StartClients starts a group without clients.
func StartClients() (*Clients, error) {
	var handle *C.heartbus_clients
	if err := call(func() C.heartbus_status { return C.heartbus_clients_start(nil, 0, &handle) }); err != nil {
		return nil, err
	}
	told := make(chan Event, batch)
	go listen(func(events *C.heartbus_event, count *C.size_t) C.heartbus_status {
		return C.heartbus_clients_poll(handle, events, batch, -1, count)
	}, told)
	return &Clients{told, handle}, nil
}

// Connect adds a client, and returns the number by which events and the other methods call it.
func (c *Clients) Connect(config Config) (uint64, error) {
	text, err := config.bytes()
	if err != nil {
		return 0, fmt.Errorf("configuration: %w", err)
	}
	var client C.uint64_t
	start, length := bytesOf(text)
	err = call(func() C.heartbus_status { return C.heartbus_client_connect(c.handle, start, length, &client) })
	return uint64(client), err
}

// Send sends data to the server.
func (c *Clients) Send(client uint64, data []byte) error {
	payload, length := bytesOf(data)
	return call(func() C.heartbus_status {
		return C.heartbus_client_send(c.handle, C.uint64_t(client), payload, length, 0)
	})
}

// Disconnect says goodbye. A client_finished event follows.
func (c *Clients) Disconnect(client uint64) error {
	return call(func() C.heartbus_status { return C.heartbus_client_disconnect(c.handle, C.uint64_t(client)) })
}

// Close stops and frees the group. What is left of its Events is thrown away.
func (c *Clients) Close() error {
	if err := call(func() C.heartbus_status { return C.heartbus_clients_stop(c.handle) }); err != nil {
		return err
	}
	for range c.Events {
	}
	return call(func() C.heartbus_status { return C.heartbus_clients_free(c.handle) })
}
