package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Algorithms that are timed and kept on disk. The stand-in cuBLASLt advises three; where the result
 * has 13 columns the second is the fastest.
 */
@Tag("cuda-host")
class AlgorithmChoiceTest {
  private static final String ALGORITHM = "0123456789abcdef".repeat(8);
  private static CudaBackend backend;

  @TempDir Path cache;

  @BeforeAll
  static void standIn() {
    CudaHost.require();
    backend = CudaHost.backend();
  }

  /** Multiplies by a library of its own and returns the rank of the algorithm that it took. */
  private int rank(boolean tune) {
    DeviceMemory memory = (DeviceMemory) backend.memory();
    long held = memory.stats().live();
    try (Driver driver = new Driver();
        CublasLtProducts products = new CublasLtProducts(driver, memory, null, null, cache, tune);
        Scope scope = Scope.open()) {
      Array a = Host.upload(backend, new double[] {1, 2, 3, 4, 5, 6}, Shape.of(3, 2), DType.F32);
      Array b = Host.upload(backend, fill(2 * 13, 0.5), Shape.of(2, 13), DType.F32);
      Array bias = Host.upload(backend, fill(13, 100), Shape.of(13), DType.F32);
      Array c = Host.upload(backend, new double[39], Shape.of(3, 13), DType.F32);
      backend.synchronize(); // the products' stream is another
      products.gemm(Gemm.of(3, 13, 2, false, false), a, b, bias, null, c);
      driver.synchronize();
      double[] got = Host.download(c);
      for (int i = 0; i < 39; i++) {
        assertEquals(100 + new double[] {1.5, 3.5, 5.5}[i / 13], got[i], 1e-6);
      }
      List<Integer> ranks = products.ranks(3, 13, 2);
      assertEquals(1, ranks.size());
      return ranks.get(0);
    } finally {
      assertEquals(held, memory.stats().live(), "tuning leaves memory behind");
    }
  }

  private static double[] fill(int n, double v) {
    double[] all = new double[n];
    java.util.Arrays.fill(all, v);
    return all;
  }

  private Path file() throws IOException {
    try (Stream<Path> files = Files.list(cache)) {
      List<Path> all = files.toList();
      assertEquals(1, all.size(), all.toString());
      return all.get(0);
    }
  }

  @Test
  void theFirstAdviceIsTakenAndNothingKeptWithoutTuning() throws IOException {
    assertEquals(0, rank(false));
    try (Stream<Path> files = Files.list(cache)) {
      assertEquals(0, files.count());
    }
  }

  @Test
  void theFastestIsKeptAndReadBack() throws IOException {
    assertEquals(1, rank(true));
    assertEquals(1, rank(false), "the file's choice");
    // A choice that measuring would not make shows that later runs do not measure.
    String text = Files.readString(file());
    assertTrue(text.contains("f32 nn e4 "), text);
    String third = text.replace("000000000000a161", "000000000000a162");
    assertFalse(third.equals(text), text);
    Files.writeString(file(), third);
    assertEquals(2, rank(false));
    assertEquals(2, rank(true));
  }

  @Test
  void anAlgorithmThatIsNotAdvisedIsNotRun() throws IOException {
    assertEquals(1, rank(true));
    Files.writeString(
        file(), Files.readString(file()).replace("000000000000a161", "000000000000ffff"));
    assertEquals(0, rank(false));
    assertEquals(1, rank(true), "and is chosen anew");
    assertEquals(1, rank(false));
  }

  @Test
  void aDamagedFileIsSurvived() throws IOException {
    assertEquals(1, rank(true));
    byte[] whole = Files.readAllBytes(file());
    List<byte[]> damaged =
        List.of(
            new byte[0],
            java.util.Arrays.copyOf(whole, whole.length - 20),
            new byte[] {0, -1, 17, 10, 10, 9},
            (new String(whole, StandardCharsets.UTF_8) + "garbage\n")
                .getBytes(StandardCharsets.UTF_8),
            new String(whole, StandardCharsets.UTF_8)
                .replace("version 130000", "version 120000")
                .getBytes(StandardCharsets.UTF_8),
            new byte[5 << 20]);
    for (byte[] bytes : damaged) {
      Files.write(file(), bytes);
      assertEquals(0, rank(false), "a damaged file of " + bytes.length + " bytes is trusted");
    }
    assertEquals(1, rank(true));
    assertEquals(1, rank(false), "it was written anew");
  }

  @Test
  void manyShapesAndOtherProcessesShareTheFile() {
    AlgorithmFile one = new AlgorithmFile(cache, "card", 7);
    AlgorithmFile two = new AlgorithmFile(cache, "card", 7);
    one.put("f16 m1", ALGORITHM);
    two.put("f16 m2", ALGORITHM);
    AlgorithmFile both = new AlgorithmFile(cache, "card", 7);
    assertEquals(ALGORITHM, both.get("f16 m1"));
    assertEquals(ALGORITHM, both.get("f16 m2"));
    assertNull(both.get("f16 m3"));
    assertNull(new AlgorithmFile(cache, "another card", 7).get("f16 m1"));
    assertNull(new AlgorithmFile(cache, "card", 8).get("f16 m1"));
  }
}
