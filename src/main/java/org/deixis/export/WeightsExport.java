package org.deixis.export;

import java.nio.file.Path;
import java.util.AbstractCollection;
import java.util.Collection;
import java.util.Iterator;
import java.util.Map;
import org.deixis.io.HostTensor;
import org.deixis.io.NpzWriter;
import org.deixis.io.Safetensors;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;

/** A model's parameters by PyTorch's names, fp32, without its graph. */
public final class WeightsExport {
  private WeightsExport() {}

  /**
   * Writes a safetensors file.
   *
   * @throws org.deixis.core.InputException when it cannot be written
   */
  public static void safetensors(Module model, Path file) {
    Safetensors.write(file, tensors(model), Map.of("format", "pt"));
  }

  /**
   * Writes NumPy's .npz.
   *
   * @throws org.deixis.core.InputException when it cannot be written
   */
  public static void npz(Module model, Path file) {
    NpzWriter.write(file, tensors(model));
  }

  /** Read from the device one at a time, whenever the collection is walked. */
  private static Collection<HostTensor> tensors(Module model) {
    Map<String, Parameter> parameters = model.parameters();
    return new AbstractCollection<>() {
      @Override
      public Iterator<HostTensor> iterator() {
        return parameters.entrySet().stream()
            .map(
                e -> HostTensor.ofFloats(e.getKey(), e.getValue().shape(), e.getValue().toFloats()))
            .iterator();
      }

      @Override
      public int size() {
        return parameters.size();
      }
    };
  }
}
