package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Buffer;

/** A piece of device memory. */
final class DeviceBuffer extends Buffer {
  private final DeviceMemory memory;
  private final long address;
  private final long reserved;
  private final boolean ofGraphs;

  /**
   * @param reserved bytes of the block behind it
   * @param ofGraphs whether the block belongs to the memory that graphs work in
   */
  DeviceBuffer(DeviceMemory memory, long address, long bytes, long reserved, boolean ofGraphs) {
    super(bytes);
    this.memory = memory;
    this.address = address;
    this.reserved = reserved;
    this.ofGraphs = ofGraphs;
  }

  @Override
  public Backend backend() {
    return memory.backend();
  }

  long address() {
    if (!alive()) {
      throw new IllegalStateException(
          "device buffer used after its last release: keep it beyond the scope it was made in");
    }
    return address;
  }

  /** Device address of an array's first element, 0 for null. */
  static long address(Array a) {
    return a == null ? 0 : ((DeviceBuffer) a.buffer()).address() + a.offset() * a.dtype().bytes();
  }

  /** Device addresses joined by "or": what one of them is no multiple of, this is none of. */
  static long addresses(Array... arrays) {
    long joined = 0;
    for (Array a : arrays) {
      joined |= address(a);
    }
    return joined;
  }

  @Override
  protected void free() {
    memory.free(address, reserved, ofGraphs);
  }
}
