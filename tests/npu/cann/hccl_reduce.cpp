/* Data types and reductions. */
#include <string.h>

#include "hccl_comm.h"

size_t type_size(HcclDataType type) {
  switch (type) {
    case HCCL_DATA_TYPE_INT8:
    case HCCL_DATA_TYPE_UINT8:
    case HCCL_DATA_TYPE_HIF8:
    case HCCL_DATA_TYPE_FP8E4M3:
    case HCCL_DATA_TYPE_FP8E5M2:
    case HCCL_DATA_TYPE_FP8E8M0:
      return 1;
    case HCCL_DATA_TYPE_INT16:
    case HCCL_DATA_TYPE_UINT16:
    case HCCL_DATA_TYPE_FP16:
    case HCCL_DATA_TYPE_BFP16:
      return 2;
    case HCCL_DATA_TYPE_INT32:
    case HCCL_DATA_TYPE_UINT32:
    case HCCL_DATA_TYPE_FP32:
      return 4;
    case HCCL_DATA_TYPE_INT64:
    case HCCL_DATA_TYPE_UINT64:
    case HCCL_DATA_TYPE_FP64:
      return 8;
    default:
      return 0;
  }
}

/* What Atlas A2 reduces: HcclAllReduce.md, HcclReduceScatter.md and HcclReduce.md in docs/zh/api_ref of
   github.com/hicann/hccl 09300b70df9a; the check is CheckReduceOp in src/ops/op_common/op_common.cc there. */
bool reducible(HcclDataType type, HcclReduceOp op) {
  if (op < HCCL_REDUCE_SUM || op > HCCL_REDUCE_MIN) return false;
  switch (type) {
    case HCCL_DATA_TYPE_INT8:
    case HCCL_DATA_TYPE_INT32:
    case HCCL_DATA_TYPE_INT64:
    case HCCL_DATA_TYPE_FP16:
    case HCCL_DATA_TYPE_FP32:
      return true;
    case HCCL_DATA_TYPE_INT16:
    case HCCL_DATA_TYPE_BFP16:
      return op != HCCL_REDUCE_PROD;
    default:
      return false;
  }
}

static uint32_t bits(float value) {
  uint32_t word;
  memcpy(&word, &value, sizeof word);
  return word;
}

static float number(uint32_t word) {
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

struct Bfloat16 {
  uint16_t word;
  operator float() const { return number((uint32_t)word << 16); }
  Bfloat16() = default;
  explicit Bfloat16(float value) {
    uint32_t exact = bits(value);
    /* Round to nearest, ties to even; the sum would turn some NaN into infinity. */
    word = value != value ? 0x7fc0 : (uint16_t)((exact + 0x7fff + (exact >> 16 & 1)) >> 16);
  }
};

/* Without _Float16, which gcc 11 does not have on x86-64. Scaling by powers of two is exact and lets the hardware
   round to nearest, ties to even. */
struct Float16 {
  uint16_t word;
  operator float() const {
    uint32_t sign = (uint32_t)(word & 0x8000) << 16, rest = word & 0x7fff;
    if (rest >= 0x7c00) return number(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    return number(bits(number(rest << 13) * 0x1p112f) | sign);
  }
  Float16() = default;
  explicit Float16(float value) {
    uint32_t sign = bits(value) >> 16 & 0x8000, rest = bits(value) & 0x7fffffff;
    float size = number(rest);
    if (value != value)
      word = 0x7e00;
    else if (size >= 65520.0f)
      word = (uint16_t)(sign | 0x7c00);
    else if (size < 0x1p-14f) /* subnormal: in units of 2^-24, in the last bits of 2^23 + units */
      word = (uint16_t)(sign | (bits(size * 0x1p24f + 0x1p23f) & 0x7ff));
    else
      word = (uint16_t)(sign | ((rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13));
  }
};

template <class Sum>
static Sum combine(HcclReduceOp op, Sum a, Sum b) {
  switch (op) {
    case HCCL_REDUCE_SUM:
      return (Sum)(a + b);
    case HCCL_REDUCE_PROD:
      return (Sum)(a * b);
    case HCCL_REDUCE_MAX:
      return a > b || a != a ? a : b;
    default:
      return a < b || a != a ? a : b;
  }
}

/* Sum: the type to accumulate in. The documentation of HCCL names none; float for half precision, rounded once, is
   the choice of this stand-in. */
template <class Type, class Sum>
static void reduce_as(HcclReduceOp op, void *output, const char *const *inputs, uint32_t ranks, uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    Sum sum = (Sum)((const Type *)inputs[0])[i];
    for (uint32_t rank = 1; rank < ranks; rank++) sum = combine<Sum>(op, sum, (Sum)((const Type *)inputs[rank])[i]);
    ((Type *)output)[i] = (Type)sum;
  }
}

/* Overflow of integers wraps, which is undefined for signed ones: sums and products use unsigned ones. */
template <class Signed, class Unsigned>
static void reduce_integers(HcclReduceOp op, void *output, const char *const *inputs, uint32_t ranks,
                            uint64_t count) {
  if (op == HCCL_REDUCE_SUM || op == HCCL_REDUCE_PROD)
    reduce_as<Unsigned, uint64_t>(op, output, inputs, ranks, count);
  else
    reduce_as<Signed, Signed>(op, output, inputs, ranks, count);
}

void reduce(HcclDataType type, HcclReduceOp op, void *output, const char *const *inputs, uint32_t ranks,
            uint64_t count) {
  switch (type) {
    case HCCL_DATA_TYPE_INT8:
      return reduce_integers<int8_t, uint8_t>(op, output, inputs, ranks, count);
    case HCCL_DATA_TYPE_INT16:
      return reduce_integers<int16_t, uint16_t>(op, output, inputs, ranks, count);
    case HCCL_DATA_TYPE_INT32:
      return reduce_integers<int32_t, uint32_t>(op, output, inputs, ranks, count);
    case HCCL_DATA_TYPE_INT64:
      return reduce_integers<int64_t, uint64_t>(op, output, inputs, ranks, count);
    case HCCL_DATA_TYPE_FP16:
      return reduce_as<Float16, float>(op, output, inputs, ranks, count);
    case HCCL_DATA_TYPE_BFP16:
      return reduce_as<Bfloat16, float>(op, output, inputs, ranks, count);
    default:
      return reduce_as<float, float>(op, output, inputs, ranks, count);
  }
}
