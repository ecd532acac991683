/* Streams do everything at once, so that every event is complete when it is recorded. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "account.h"
#include "acl/acl_mdl.h"
#include "acl/acl_rt.h"
#include "acl/error_codes/rt_error_codes.h"

struct stream {
  int magic;
  int id;
};

struct event {
  int magic;
  uint32_t flag;
  int64_t recorded; /* ns; 0: never */
};

#define STREAM 0x57ea0
#define EVENT 0xe7e70

static struct stream *known_stream(const char *name, aclrtStream handle) {
  static struct stream of_device = {.magic = STREAM}; /* NULL is the default stream */
  struct stream *stream = handle ? handle : &of_device;
  if (stream->magic == STREAM) return stream;
  account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: not a stream", name);
  return NULL;
}

static struct event *known_event(const char *name, aclrtEvent handle) {
  struct event *event = handle;
  if (event && event->magic == EVENT) return event;
  account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: not an event", name);
  return NULL;
}

aclError aclrtCreateStreamWithConfig(aclrtStream *stream, uint32_t priority, uint32_t flag) {
  static atomic_int streams;
  (void)priority, (void)flag;
  if (account_current_device() < 0) {
    return account_complain(ACL_ERROR_RT_CONTEXT_NULL, "%s: no device is set", __func__);
  }
  struct stream *created = malloc(sizeof *created);
  if (!created) return ACL_ERROR_RT_NO_STREAM_RESOURCE;
  *created = (struct stream){.magic = STREAM, .id = ++streams};
  *stream = created;
  return ACL_SUCCESS;
}

aclError aclrtCreateStream(aclrtStream *stream) { return aclrtCreateStreamWithConfig(stream, 0, 0); }

aclError aclrtDestroyStream(aclrtStream stream) {
  struct stream *found = known_stream(__func__, stream);
  if (!stream || !found) return ACL_ERROR_RT_PARAM_INVALID;
  found->magic = 0;
  free(found);
  return ACL_SUCCESS;
}

aclError aclrtDestroyStreamForce(aclrtStream stream) { return aclrtDestroyStream(stream); }

static aclError done(const char *name, aclrtStream stream) {
  if (!known_stream(name, stream)) return ACL_ERROR_RT_PARAM_INVALID;
  return account_fault(name, account_chip(account_current_device()));
}

aclError aclrtSynchronizeStream(aclrtStream stream) { return done(__func__, stream); }

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout) {
  (void)timeout;
  return done(__func__, stream);
}

aclError aclrtStreamQuery(aclrtStream stream, aclrtStreamStatus *status) {
  *status = ACL_STREAM_STATUS_COMPLETE;
  return done(__func__, stream);
}

aclError aclrtStreamGetId(aclrtStream stream, int32_t *streamId) {
  struct stream *found = known_stream(__func__, stream);
  if (!found) return ACL_ERROR_RT_PARAM_INVALID;
  *streamId = found->id;
  return ACL_SUCCESS;
}

aclError aclrtGetStreamOverflowSwitch(aclrtStream stream, uint32_t *flag) {
  *flag = 0;
  return done(__func__, stream);
}

/* Nothing is ever captured into a graph. */
aclError aclmdlRICaptureGetInfo(aclrtStream stream, aclmdlRICaptureStatus *status, aclmdlRI *modelRI) {
  *status = ACL_MODEL_RI_CAPTURE_STATUS_NONE;
  *modelRI = NULL;
  return done(__func__, stream);
}

aclError aclrtCreateEventExWithFlag(aclrtEvent *event, uint32_t flag) {
  struct event *created = malloc(sizeof *created);
  if (!created) return ACL_ERROR_RT_NO_EVENT_RESOURCE;
  *created = (struct event){.magic = EVENT, .flag = flag};
  *event = created;
  return ACL_SUCCESS;
}

aclError aclrtCreateEventWithFlag(aclrtEvent *event, uint32_t flag) {
  return aclrtCreateEventExWithFlag(event, flag);
}

aclError aclrtDestroyEvent(aclrtEvent event) {
  struct event *found = known_event(__func__, event);
  if (!found) return ACL_ERROR_RT_PARAM_INVALID;
  found->magic = 0;
  free(found);
  return ACL_SUCCESS;
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  struct event *found = known_event(__func__, event);
  if (!found) return ACL_ERROR_RT_PARAM_INVALID;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  found->recorded = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
  return done(__func__, stream);
}

aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream) {
  struct event *found = known_event(__func__, event);
  if (!found) return ACL_ERROR_RT_PARAM_INVALID;
  found->recorded = 0;
  return done(__func__, stream);
}

aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event) {
  return known_event(__func__, event) ? done(__func__, stream) : ACL_ERROR_RT_PARAM_INVALID;
}

aclError aclrtSynchronizeEvent(aclrtEvent event) {
  return known_event(__func__, event) ? ACL_SUCCESS : ACL_ERROR_RT_PARAM_INVALID;
}

aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus *status) {
  struct event *found = known_event(__func__, event);
  if (!found) return ACL_ERROR_RT_PARAM_INVALID;
  *status = found->recorded ? ACL_EVENT_RECORDED_STATUS_COMPLETE : ACL_EVENT_RECORDED_STATUS_NOT_READY;
  return ACL_SUCCESS;
}

aclError aclrtQueryEventWaitStatus(aclrtEvent event, aclrtEventWaitStatus *status) {
  *status = ACL_EVENT_WAIT_STATUS_COMPLETE;
  return known_event(__func__, event) ? ACL_SUCCESS : ACL_ERROR_RT_PARAM_INVALID;
}

aclError aclrtEventElapsedTime(float *ms, aclrtEvent startEvent, aclrtEvent endEvent) {
  struct event *start = known_event(__func__, startEvent), *end = known_event(__func__, endEvent);
  if (!start || !end) return ACL_ERROR_RT_PARAM_INVALID;
  if (!(start->flag & end->flag & ACL_EVENT_TIME_LINE) || !start->recorded || !end->recorded) {
    return account_complain(ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID, "%s: no time was recorded", __func__);
  }
  *ms = (float)(end->recorded - start->recorded) / 1e6f;
  return ACL_SUCCESS;
}
