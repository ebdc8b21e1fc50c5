# Muster: build, test, measure, install. `make help` lists the targets.
#
# Every .c of a folder belongs to that folder's program; lib/ and proto/ make one archive that all programs link.
# build/ holds everything made; build/san/ the same with ASan and UBSan; build/fuzz/ the fuzz targets.

PREFIX  ?= /usr/local
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   ?= build
PYTHON  := /usr/bin/python3
VERSION := 0.1.0

PACKAGES := libev-dev libhiredis-dev libssl-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler \
            libprotobuf-dev protobuf-compiler-grpc grpc-proto libpq-dev libsodium-dev libjansson-dev libmicrohttpd-dev \
            libinih-dev libcmocka-dev postgresql redis-server openssl build-essential pkg-config \
            clang clang-format clang-tidy cppcheck libclang-rt-14-dev \
            python3 python3-grpcio python3-protobuf python3-paho-mqtt python3-psycopg2 python3-redis python3-pytest \
            python3-pytest-timeout

WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wconversion
CFLAGS ?= -O2 -g
FLAGS   = -std=gnu11 $(WARN) -D_GNU_SOURCE -DMUSTER_VERSION='"$(VERSION)"' -I. -I$(BUILD)/gen $(CFLAGS) $(SAN)
INCS   := $(shell pkg-config --cflags libpq 2>/dev/null) -I/usr/include/postgresql
LIBS   := -lnghttp2 -lssl -lcrypto -lev -lhiredis -lpq -lprotobuf-c -lsodium -ljansson -lmicrohttpd -linih -lm
SAN    ?=

# --- generated code ---------------------------------------------------------------------------------------------------
PROTOS := $(wildcard proto/muster/v1/*.proto proto/muster/internal/v1/*.proto proto/google/rpc/*.proto)
GRPC_PROTOS := grpc/health/v1/health.proto grpc/reflection/v1/reflection.proto grpc/reflection/v1alpha/reflection.proto \
               grpc/testing/empty.proto grpc/testing/messages.proto grpc/testing/test.proto
WKT_PROTOS := google/protobuf/any.proto google/protobuf/duration.proto google/protobuf/timestamp.proto google/protobuf/descriptor.proto
PROTOC := protoc -Iproto -I/usr/share/grpc-proto -I/usr/include
GEN_C  := $(PROTOS:proto/%.proto=$(BUILD)/gen/%.pb-c.c) $(GRPC_PROTOS:%.proto=$(BUILD)/gen/%.pb-c.c) \
          $(WKT_PROTOS:%.proto=$(BUILD)/gen/%.pb-c.c)
GEN_H  := $(GEN_C:.c=.h)
SCHEMA := $(wildcard schema/postgres/*.sql schema/redis/*.lua)

# --- objects ----------------------------------------------------------------------------------------------------------
LIB_C  := $(wildcard lib/base/*.c lib/store/*.c proto/*.c)
objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIB    := $(BUILD)/libmuster.a
DISPATCHER_C := $(wildcard dispatcher/*.c)
WORKER_C     := $(wildcard workers/*.c)
CLI_C        := $(wildcard cli/*.c)
FLEET_C      := $(wildcard bench/fleet/*.c)
FLOOR_C      := $(wildcard bench/floor/*.c)
PARTS  := $(BUILD)/libdispatcher.a $(BUILD)/libworker.a $(BUILD)/libfleet.a
ALL_C  := $(LIB_C) $(DISPATCHER_C) $(WORKER_C) $(CLI_C) $(FLEET_C) $(FLOOR_C)
# A folder without a main.c yet makes no program.
PROGRAMS := $(if $(wildcard dispatcher/main.c),$(BUILD)/muster-dispatcher) $(if $(wildcard workers/main.c),$(BUILD)/muster-worker) \
            $(if $(wildcard cli/main.c),$(BUILD)/muster) $(if $(wildcard bench/fleet/main.c),$(BUILD)/muster-fleet) \
            $(if $(wildcard bench/floor/main.c),$(BUILD)/muster-floor)
UNIT_C := $(wildcard tests/unit/test_*.c)
UNIT   := $(UNIT_C:tests/unit/%.c=$(BUILD)/unit/%)
STORE  := $(patsubst tests/store/%.c,$(BUILD)/store/%,$(wildcard tests/store/test_*.c))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: $(PROGRAMS)

$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(PROTOC) --c_out=$(BUILD)/gen $<
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: /usr/share/grpc-proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(PROTOC) --c_out=$(BUILD)/gen $<
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: /usr/include/%.proto
	@mkdir -p $(BUILD)/gen
	$(PROTOC) --c_out=$(BUILD)/gen $<
# What server reflection serves: the descriptors of every public service, as one FileDescriptorSet.
$(BUILD)/gen/descriptors.bin: $(PROTOS)
	@mkdir -p $(BUILD)/gen
	$(PROTOC) --include_imports --descriptor_set_out=$@ $(filter proto/muster/v1/%,$(PROTOS)) $(GRPC_PROTOS)
$(BUILD)/gen/descriptors.o: $(BUILD)/gen/descriptors.bin
	cd $(BUILD)/gen && ld -r -b binary -z noexecstack -o descriptors.o descriptors.bin

# The folders stand for files that were removed; the .lua and .sql for changed ones.
$(BUILD)/gen/schema.c: schema/embed.py schema/postgres schema/redis $(SCHEMA)
	@mkdir -p $(BUILD)/gen
	$(PYTHON) schema/embed.py $@ $(SCHEMA)
$(BUILD)/gen/schema.o: $(BUILD)/gen/schema.c lib/store/schema_files.h
	$(CC) $(FLAGS) -c -o $@ $<

$(BUILD)/gen/%.pb-c.o: $(BUILD)/gen/%.pb-c.c | $(GEN_H)
	$(CC) -std=gnu11 -I$(BUILD)/gen $(CFLAGS) $(SAN) -c -o $@ $<
$(BUILD)/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $(INCS) -MMD -MP -c -o $@ $<

$(LIB): $(call objects,$(LIB_C)) $(GEN_C:.c=.o) $(BUILD)/gen/descriptors.o $(BUILD)/gen/schema.o
	rm -f $@ && ar rcs $@ $^
$(BUILD)/libdispatcher.a: $(call objects,$(filter-out %/main.c,$(DISPATCHER_C)))
	rm -f $@ && ar rcs $@ $^
$(BUILD)/libworker.a: $(call objects,$(filter-out %/main.c,$(WORKER_C)))
	rm -f $@ && ar rcs $@ $^
$(BUILD)/libfleet.a: $(call objects,$(filter-out %/main.c,$(FLEET_C)))
	rm -f $@ && ar rcs $@ $^

link = $(CC) $(CFLAGS) $(SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)
$(BUILD)/muster-dispatcher: $(call objects,$(DISPATCHER_C)) $(LIB)
	$(link)
$(BUILD)/muster-worker: $(call objects,$(WORKER_C)) $(LIB)
	$(link)
$(BUILD)/muster: $(call objects,$(CLI_C)) $(LIB)
	$(link)
$(BUILD)/muster-fleet: $(call objects,$(FLEET_C)) $(LIB)
	$(link)
$(BUILD)/muster-floor: $(call objects,$(FLOOR_C)) $(LIB)
	$(link)
# What tests/integration/test_grpc.py drives: the gRPC server with the interop test service.
$(BUILD)/grpc-test-server: $(call objects,$(wildcard tests/grpc_server/*.c)) $(LIB)
	$(link)
$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(PARTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -lcmocka
$(BUILD)/store/%: $(BUILD)/tests/store/%.o $(BUILD)/tests/store/servers.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -lcmocka

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/*/*/*.d $(BUILD)/*/*/*/*.d)

.PHONY: unit
unit: $(UNIT)
	@set -e; for t in $(UNIT); do echo "== $$t"; $$t; done

# lib/store against servers of its own.
.PHONY: store
store: $(STORE)
	@set -e; for t in $(STORE); do echo "== $$t"; $$t; done

.PHONY: clean
clean:
	rm -rf $(BUILD)
