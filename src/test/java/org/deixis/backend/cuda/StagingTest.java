package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.util.Random;
import org.deixis.backend.Array;
import org.deixis.backend.Download;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Page-locked staging on the stand-in driver, which puts copies off for as long as it may: a piece
 * that is used again too early gives wrong bytes.
 */
@Tag("cuda-host")
class StagingTest {
  private static final long SEED = 11;

  private static byte[] random(int n, Random random) {
    byte[] bytes = new byte[n];
    random.nextBytes(bytes);
    return bytes;
  }

  @Test
  void sourcesMayBeOverwrittenAndPiecesAreFew() {
    CudaBackend backend = CudaHost.backend();
    long most = 64 << 10;
    try (Scope scope = Scope.open();
        Driver driver = new Driver();
        Staging staging = new Staging(driver, most)) {
      Random random = new Random(SEED);
      int n = 5_000;
      int count = 60; // 8 KiB a piece: seven times what may be held
      Array device = backend.allocate(Shape.of(count, n), DType.U8);
      long address = DeviceBuffer.address(device);
      byte[] expected = random(count * n, random);
      ByteBuffer source = ByteBuffer.allocate(n);
      for (int i = 0; i < count; i++) {
        source.clear().put(expected, i * n, n).flip();
        staging.upload(source, address + (long) i * n);
        assertEquals(n, source.remaining(), "the source stays where it is");
        assertTrue(staging.held() <= most, staging.held() + " bytes held");
      }
      // Another size, for which there is no room left beside the pieces in use.
      staging.upload(ByteBuffer.wrap(random(50_000, random)), address);
      staging.upload(ByteBuffer.wrap(expected, 0, 50_000), address);
      assertTrue(staging.held() <= most, staging.held() + " bytes held");
      ByteBuffer back = ByteBuffer.allocate(expected.length);
      staging.download(address, back);
      assertArrayEquals(expected, back.array());
    }
  }

  @Test
  void largeArraysGoInParts() {
    CudaBackend backend = CudaHost.backend();
    try (Scope scope = Scope.open()) {
      byte[] expected = random((35 << 20) + 3, new Random(SEED));
      Array device = backend.allocate(Shape.of(expected.length), DType.U8);
      backend.upload(ByteBuffer.wrap(expected), device);
      ByteBuffer back = ByteBuffer.allocate(expected.length + 10);
      backend.download(device, back.position(10));
      byte[] got = new byte[expected.length];
      back.get(got);
      assertArrayEquals(expected, got);
      Download later = backend.download(device);
      backend.upload(ByteBuffer.allocate(expected.length), device);
      later.get().get(got);
      assertArrayEquals(expected, got);
    }
  }

  @Test
  void aDownloadHoldsWhatWasThereWhenItWasAskedFor() {
    CudaBackend backend = CudaHost.backend();
    try (Scope scope = Scope.open()) {
      byte[] expected = random(1_000, new Random(SEED));
      Array device = backend.allocate(Shape.of(expected.length), DType.U8);
      backend.upload(ByteBuffer.wrap(expected), device);
      Download download = backend.download(device);
      backend.upload(ByteBuffer.allocate(expected.length), device);
      Download after = backend.download(device);
      byte[] got = new byte[expected.length];
      after.get().get(got);
      assertArrayEquals(new byte[expected.length], got);
      for (int i = 0; i < 2; i++) {
        download.get().get(got);
        assertArrayEquals(expected, got);
      }
    }
  }
}
