package org.deixis.core;

/**
 * Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A draw is a pure function of (seed, stream, position), so a generator is
 * saved and restored as three longs and any thread may compute any draw.
 */
public final class Rng {
  private static final int M0 = 0xD2511F53;
  private static final int M1 = 0xCD9E8D57;
  private static final int W0 = 0x9E3779B9;
  private static final int W1 = 0xBB67AE85;

  private final long seed;
  private final long stream;
  private long position;
  private final int[] block = new int[4];
  private long blockIndex = -1;

  /** A generator at position 0. Different streams of one seed are independent. */
  public Rng(long seed, long stream) {
    this(seed, stream, 0);
  }

  public Rng(long seed, long stream, long position) {
    this.seed = seed;
    this.stream = stream;
    this.position = position;
  }

  public Rng(long seed) {
    this(seed, 0);
  }

  public long seed() {
    return seed;
  }

  public long stream() {
    return stream;
  }

  /** Number of 32-bit draws made so far. */
  public long position() {
    return position;
  }

  public void position(long position) {
    this.position = position;
  }

  /**
   * The four words of Philox 4x32-10 for a 128-bit counter (stream high, index low) under the key
   * {@code seed}.
   */
  public static void philox(long seed, long stream, long index, int[] out) {
    int c0 = (int) index;
    int c1 = (int) (index >>> 32);
    int c2 = (int) stream;
    int c3 = (int) (stream >>> 32);
    int k0 = (int) seed;
    int k1 = (int) (seed >>> 32);
    for (int round = 0; round < 10; round++) {
      long p0 = (M0 & 0xffffffffL) * (c0 & 0xffffffffL);
      long p1 = (M1 & 0xffffffffL) * (c2 & 0xffffffffL);
      int n0 = (int) (p1 >>> 32) ^ c1 ^ k0;
      int n2 = (int) (p0 >>> 32) ^ c3 ^ k1;
      c1 = (int) p1;
      c3 = (int) p0;
      c0 = n0;
      c2 = n2;
      k0 += W0;
      k1 += W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
  }

  /** 32 uniform bits. */
  public int nextInt() {
    long index = position >>> 2;
    if (index != blockIndex) {
      philox(seed, stream, index, block);
      blockIndex = index;
    }
    return block[(int) (position++ & 3)];
  }

  /**
   * Uniform in [0, bound), without modulo bias worth noticing (64-bit multiply-shift of 32 bits).
   */
  public int nextInt(int bound) {
    if (bound <= 0) {
      throw new IllegalArgumentException("bound must be positive, not " + bound);
    }
    return (int) (((nextInt() & 0xffffffffL) * bound) >>> 32);
  }

  /** Uniform in [low, high). */
  public int nextInt(int low, int high) {
    return low + nextInt(high - low);
  }

  /** Uniform in [0, 1), 24 bits. */
  public float nextFloat() {
    return (nextInt() >>> 8) * 0x1p-24f;
  }

  /** Uniform in [0, 1), 53 bits. */
  public double nextDouble() {
    long high = nextInt() & 0xffffffffL;
    long low = nextInt() & 0xffffffffL;
    return ((high << 21) ^ (low >>> 11)) * 0x1p-53;
  }

  public boolean nextBoolean(double probability) {
    return nextDouble() < probability;
  }

  /** Standard normal (Box-Muller; two draws of {@link #nextDouble} a value, no hidden state). */
  public double nextGaussian() {
    double u = 1 - nextDouble();
    double v = nextDouble();
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * v);
  }

  /** Fisher-Yates, in place. */
  public void shuffle(int[] a) {
    for (int i = a.length - 1; i > 0; i--) {
      int j = nextInt(i + 1);
      int t = a[i];
      a[i] = a[j];
      a[j] = t;
    }
  }
}
